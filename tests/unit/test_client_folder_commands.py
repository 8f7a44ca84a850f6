"""Where an image is known to be, how the server's image is run as the checker, and what a template is."""

import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from inference_client.cli import checker
from inference_client.cli.checker import Check
from inference_client.errors import UnusableInput
from inference_client.overview_schemas import ConsumerView
from inference_client.scaffold import model_name, write_template
from inference_client.sharing import judge
from inference_client.statuses import ConsumerStatus, Kind
from job_consumer.settings import LimitSettings
from kit.settings import Settings

LOCAL, FAR = "http://127.0.0.1:8000", "https://inference.example.org"
NOW = datetime.now(UTC)


def consumer(name: str, host: str | None, *kinds: Kind, status: ConsumerStatus = ConsumerStatus.FREE) -> ConsumerView:
    return ConsumerView(
        name=name,
        owner=None,
        kinds=list(kinds or (Kind.CPU,)),
        gpu_uuid=None,
        host=host,
        status=status,
        detail=None,
        task=None,
        replicas=[],
        replica_slots=0,
        first_seen_at=NOW,
        seen_at=NOW,
    )


@pytest.mark.parametrize(
    ("consumers", "server", "is_shared", "says"),
    [
        ([consumer("a", "here"), consumer("b", "here")], FAR, True, "every consumer for cpu tasks"),
        (
            [consumer("a", "here"), consumer("b", "there")],
            FAR,
            False,
            "this Docker Engine is here, and tasks run on there",
        ),
        ([consumer("a", "here"), consumer("b", "there", Kind.GPU)], FAR, True, "every consumer"),
        ([consumer("a", "here"), consumer("b", "there", status=ConsumerStatus.SILENT)], FAR, True, "every consumer"),
        ([consumer("a", "here"), consumer("b", None)], FAR, False, "do not say on which host: b"),
        ([consumer("g", "here", Kind.GPU)], FAR, False, "no consumer for cpu tasks is connected"),
        ([], LOCAL, False, "no consumer for cpu tasks is connected"),
        (None, LOCAL, True, "is on this machine"),
        (None, "http://localhost:8000/base", True, "is on this machine"),
        (None, "http://localhost.example.org", False, "without a key"),
        (None, FAR, False, "without a key"),
    ],
)
def test_an_image_is_where_tasks_run_only_if_every_consumer_that_may_take_them_has_it(
    consumers: list[ConsumerView] | None, server: str, is_shared: bool, says: str
) -> None:
    sharing = judge(consumers, server=server, engine="here", kind=Kind.CPU)
    assert sharing.is_shared is is_shared
    assert says in sharing.detail
    assert "here" not in sharing.lacking


def test_the_checkers_container_sees_the_same_files_and_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def run(command: list[str], *, on_stderr: bool) -> int:
        ran.append(command)
        return 1

    monkeypatch.setattr(checker, "run_through", run)
    monkeypatch.setattr(checker, "has_image", lambda tag: True)
    monkeypatch.setattr(checker, "remove_volume", lambda name: None)
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    monkeypatch.setenv("PIDS_LIMIT", "64")
    (tmp_path / "ct.nii.gz").write_text("")
    check = Check("seg:1", tmp_path / "ct.nii.gz", tmp_path, ("--json",), gpu=True, output=tmp_path / "out.zip")

    assert checker.run_check(check, "server:1") == 1

    (command,) = ran
    mounts = [after for word, after in pairwise(command) if word == "--mount"]
    volume = mounts[1].split(",")[1].removeprefix("source=")
    assert mounts == [
        "type=bind,source=/run/user/1000/docker.sock,target=/var/run/docker.sock",
        f"type=volume,source={volume},target=/work",
        f"type=bind,source={tmp_path}/ct.nii.gz,target=/check/input/ct.nii.gz,readonly",
        f"type=bind,source={tmp_path},target=/check/model/{tmp_path.name},readonly",
        f"type=bind,source={tmp_path},target=/check/output",
    ]
    inside = command[command.index("server:1") :]
    assert inside[:4] == ["server:1", "inference-server", "check", "seg:1"]
    assert inside[inside.index("--input") + 1] == "/check/input/ct.nii.gz"
    assert inside[inside.index("--output") + 1] == "/check/output/out.zip"
    assert inside[-3:] == ["--json", "--work-volume", volume]
    assert command[command.index("--env") + 1] == "PIDS_LIMIT"
    assert command[command.index("--gpus") + 1] == "all"


@pytest.mark.parametrize(
    ("address", "name", "says"),
    [("ssh://host", "in", "DOCKER_HOST is ssh://host"), ("", "a,b", "has a comma in its name")],
)
def test_what_the_checkers_container_could_not_see_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, name: str, says: str
) -> None:
    monkeypatch.setattr(checker, "has_image", lambda tag: True)
    monkeypatch.setattr(checker, "remove_volume", lambda name: None)
    monkeypatch.setenv("DOCKER_HOST", address)
    (tmp_path / name).mkdir()
    with pytest.raises(UnusableInput, match=says):
        checker.run_check(Check("seg:1", tmp_path / name, None, ()), "server:1")


def test_an_output_that_could_not_be_kept_is_said_before_the_run(tmp_path: Path) -> None:
    output = tmp_path / "none" / "out.zip"
    with pytest.raises(UnusableInput, match="there is no folder"):
        checker.run_check(Check("seg:1", tmp_path, None, (), output=output), None)


def test_the_checkers_container_gets_every_limit_of_a_consumer() -> None:
    limits = set(LimitSettings.model_fields) - set(Settings.model_fields)
    assert {limit.upper() for limit in limits} == set(checker.LIMITS)


def test_neither_code_nor_image_is_one_sentence_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(checker, "has_image", lambda tag: False)
    with pytest.raises(UnusableInput, match=r"neither that nor the server's image inference-server:[0-9.]+ is on this"):
        checker.run_check(Check("seg:1", tmp_path, None, ()), None)


def test_a_template_is_written_only_where_nothing_is(tmp_path: Path) -> None:
    written = write_template(tmp_path / "My Model")
    assert {path.relative_to(tmp_path / "My Model").as_posix() for path in written} == {
        ".dockerignore",
        "Dockerfile",
        "README.md",
        "example/input/cells.pgm",
        "model/threshold.json",
        "predict.py",
        "test_predict.py",
    }
    assert "infer submit my-model example/input" in (tmp_path / "My Model" / "README.md").read_text()
    for path in (tmp_path / "My Model", tmp_path / "My Model" / "README.md"):
        with pytest.raises(UnusableInput, match="nothing was written"):
            write_template(path)
    (tmp_path / "empty").mkdir()
    write_template(tmp_path / "empty")


@pytest.mark.parametrize(
    ("folder", "name"),
    [("Spleen Seg_v2", "spleen-seg_v2"), ("--x", "x"), ("ünder", "nder"), ("...a", "a"), ("_", "model")],
)
def test_a_folders_name_becomes_an_id_that_the_server_takes(tmp_path: Path, folder: str, name: str) -> None:
    assert model_name(tmp_path / folder) == name
