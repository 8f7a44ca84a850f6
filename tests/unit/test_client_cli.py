"""The `infer` command: results on stdout, everything else on stderr, one JSON document where asked, exit codes."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer

from contract import errors as server
from inference_client import cli
from inference_client.cli import results
from inference_client.cli.display import Display
from inference_client.cli.exit_codes import MEANINGS, ExitCode, exit_code_of
from inference_client.client import InferenceClient
from inference_client.errors import (
    DamagedDownload,
    Interrupted,
    InvalidRequest,
    ModelNotFound,
    OutputMissing,
    ReportedError,
    ServiceUnavailable,
    StorageFull,
    TaskFailed,
    TaskNotFound,
    TaskPending,
    Unauthenticated,
    UnusableInput,
    WaitTimeout,
)
from inference_client.schemas import TaskView
from inference_client.wording import describe_with_eta
from tests.unit.client_peer import MODEL, UID, Answer, Peer, model_view, running_peer, task_view
from tests.zips import make_zip

STATUS = f"/api/tasks/{UID}/status"
FINISHED = task_view(status="finished", attempt=1, exit_code=0)
FAILED = task_view(
    status="failed",
    reason="exit_code",
    detail="the program ended with exit code 3",
    exit_code=3,
    attempt=1,
    log_tail="Traceback:\x1b[2J\n  ValueError: no slices\n",
)

Infer = Callable[..., tuple[int, str, str]]


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Peer]:
    with running_peer() as peer:
        peer.output = make_zip({"result/mask.txt": b"mask"})
        monkeypatch.setenv("INFERENCE_SERVER_URL", peer.url)
        monkeypatch.setenv("INFERENCE_SERVER_KEY", "the-key")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        yield peer


@pytest.fixture
def infer(peer: Peer, capfd: pytest.CaptureFixture[str]) -> Infer:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "1.dcm").write_bytes(b"pixels")
    return tmp_path / "scan"


def test_submit_prints_the_uid_and_nothing_else(infer: Infer, peer: Peer, scan: Path) -> None:
    code, out, err = infer("submit", MODEL, scan)
    assert (code, out) == (0, f"{UID}\n")
    assert "sent: 6 B" in err
    assert peer.seen[0].headers["x-api-key"] == "the-key"
    assert len(peer.seen) == 1


def test_submit_with_an_output_waits_fetches_and_prints_the_path(
    infer: Infer, peer: Peer, scan: Path, tmp_path: Path
) -> None:
    peer.views = deque([task_view(position=2), FINISHED])
    code, out, err = infer("submit", MODEL, scan, "-o", tmp_path / "out.zip")
    assert (code, out) == (0, f"{tmp_path / 'out.zip'}\n")
    assert (tmp_path / "out.zip").read_bytes() == peer.output
    assert f"task {UID}\nqueued, 2 before it\nfinished\nfetched: " in err


def test_wait_and_status_say_what_a_task_waits_for(infer: Infer, peer: Peer) -> None:
    stuck = task_view(position=0, waits_for="consumer", wait_detail="no consumer with a GPU is there")
    busy = task_view(position=0, waits_for="novelty", wait_detail="all 2 consumers with a GPU are busy")
    peer.views = deque([stuck, stuck, busy, FINISHED])
    _, _, err = infer("wait", UID)
    assert err.splitlines() == [
        "queued, 0 before it: no consumer with a GPU is there",
        "queued, 0 before it: all 2 consumers with a GPU are busy",
        "finished",
    ]
    peer.views = deque([stuck])
    assert "queued, 0 before it: no consumer with a GPU is there\n" in infer("status", UID)[1]
    leased = task_view(
        status="leased", phase="preparing", waits_for="preparation", wait_detail="its image is\x1b[2J pulled"
    )
    peer.views = deque([leased])
    out = infer("status", UID)[1]
    assert "leased, preparing\n" in out
    assert "waits for" in out
    assert "pulled" in out
    assert "\x1b" not in out


def test_a_pull_is_shown_with_its_percent_but_not_with_a_line_for_each(infer: Infer, peer: Peer) -> None:
    pulls = [
        task_view(
            status="leased",
            phase="preparing",
            waits_for="image",
            wait_detail=f"its consumer pulls the image: {percent} % done",
            pull_percent=percent,
        )
        for percent in (7, 41, 99)
    ]
    peer.views = deque([*pulls, FINISHED])
    assert infer("wait", UID)[2].splitlines() == ["leased, pulling the image", "finished"]
    peer.views = deque(pulls[1:2])
    assert "41 % done" in infer("status", UID)[1]


def test_progress_is_shown_but_not_with_a_line_for_each(infer: Infer, peer: Peer) -> None:
    runs = [
        task_view(status="running", phase="running", progress=progress, progress_text="fold\x1b[2J 2")
        for progress in (0.1, 0.29, 0.999)
    ]
    peer.views = deque([*runs, FINISHED])
    assert infer("wait", UID)[2].splitlines() == ["running", "finished"]
    peer.views = deque(runs[1:2])
    out = infer("status", UID)[1]
    assert "29 % (fold" in out
    assert "\x1b" not in out
    views = [TaskView.model_validate(view) for view in runs]
    assert [describe_with_eta(view) for view in views] == [
        f"running, {percent} % (fold\ufffd[2J 2)" for percent in (10, 29, 99)
    ]


def test_an_output_folder_gets_the_zip_under_the_uid(infer: Infer, peer: Peer, scan: Path, tmp_path: Path) -> None:
    peer.views = deque([FINISHED])
    code, out, _ = infer("submit", MODEL, scan, "-o", tmp_path)
    assert (code, out) == (0, f"{tmp_path / UID}.zip\n")


def test_extract_unpacks_into_the_folder(infer: Infer, peer: Peer, tmp_path: Path) -> None:
    code, out, _ = infer("fetch", UID, "-o", tmp_path / "out", "--extract")
    assert (code, out) == (0, f"{tmp_path / 'out'}\n")
    assert (tmp_path / "out" / "result" / "mask.txt").read_bytes() == b"mask"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_fetch_goes_to_the_current_folder(
    infer: Infer, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert infer("fetch", UID)[:2] == (0, f"{UID}.zip\n")
    assert hashlib.sha256((tmp_path / f"{UID}.zip").read_bytes()).digest() == hashlib.sha256(peer.output).digest()


def test_warnings_are_shown_once_in_lines_that_steer_no_terminal(
    infer: Infer, peer: Peer, scan: Path, tmp_path: Path
) -> None:
    warned = task_view(status="finished", attempt=1, warnings=["a\x1b[2J", "b\nwarning: forged"], warning_count=2)
    peer.views, peer.warning_count = deque([warned]), 2
    lines = "warning: a\N{REPLACEMENT CHARACTER}[2J\nwarning: b warning: forged\n"
    for command in (
        ("wait", UID),
        ("submit", MODEL, scan, "--wait"),
        ("submit", MODEL, scan, "-o", tmp_path / "out.zip"),
        ("submit", MODEL, scan, "-o", tmp_path / "out.zip", "--json"),
        ("fetch", UID, "-o", tmp_path / "out.zip"),
        ("fetch", UID, "-o", tmp_path / "out.zip", "--json"),
        ("status", UID),
    ):
        code, _, err = infer(*command)
        assert (code, err.count(lines), err.count("warning: ")) == (0, 1, 3), command
    assert "warning" not in infer("status", UID, "--json")[2]


def test_a_task_without_warnings_shows_none_and_is_asked_for_no_more(infer: Infer, peer: Peer, tmp_path: Path) -> None:
    assert "warning" not in infer("fetch", UID, "-o", tmp_path / "out.zip")[2]
    assert peer.calls("GET", STATUS) == []
    assert "warning" not in infer("status", UID)[1]


def test_the_warnings_of_a_batch_name_their_case(infer: Infer, peer: Peer, scan: Path) -> None:
    peer.views = deque([task_view(status="finished", warnings=["a link was left out"], warning_count=1)])
    code, _, err = infer("submit", MODEL, scan, "--each", "--wait")
    assert code == 0
    assert f"warning: {scan}: a link was left out\n" in err


def test_a_bad_output_place_is_refused_before_anything_is_sent(
    infer: Infer, peer: Peer, scan: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert infer("submit", MODEL, scan, "-o", tmp_path / "missing" / "out.zip")[0] == ExitCode.USAGE
    assert infer("submit", MODEL, scan, "-o", tmp_path / "file", "--extract")[0] == ExitCode.USAGE
    assert infer("submit", MODEL, scan, "--extract")[0] == ExitCode.USAGE
    assert infer("submit", MODEL, scan, "-o", tmp_path, "--no-wait")[0] == ExitCode.USAGE
    assert peer.seen == []


def test_a_failed_task_shows_reason_exit_code_and_log_but_no_escape_sequences(infer: Infer, peer: Peer) -> None:
    peer.views = deque([FAILED])
    code, out, err = infer("wait", UID)
    assert (code, out) == (ExitCode.TASK_FAILED, "")
    assert "the program ended with exit code 3 (exit_code, exit code 3)" in err
    assert "  ValueError: no slices" in err
    assert "\x1b" not in err


def test_what_a_task_says_of_itself_cannot_steer_the_terminal(infer: Infer, peer: Peer) -> None:
    peer.views = deque([task_view(status="failed", reason="exit_code", detail="gone\x1b[2J")])
    code, out, _ = infer("status", UID)
    assert (code, "gone" in out, "\x1b" in out) == (0, True, False)


def test_a_failed_task_is_one_json_document(infer: Infer, peer: Peer) -> None:
    peer.views = deque([FAILED])
    code, out, err = infer("wait", UID, "--json")
    assert code == ExitCode.TASK_FAILED
    assert err == ""
    body = json.loads(out)
    assert {name: body[name] for name in ("error", "uid", "status", "reason", "exit_code", "log_tail")} == {
        "error": "TaskFailed",
        "uid": UID,
        "status": "failed",
        "reason": "exit_code",
        "exit_code": 3,
        "log_tail": FAILED["log_tail"],
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TaskFailed(), 1),
        (TaskFailed(status="cancelled"), 8),
        (TaskFailed(reason="cancelled"), 8),
        (UnusableInput("x"), 2),
        (FileNotFoundError("x"), 2),
        (ModelNotFound(), 3),
        (TaskNotFound(), 3),
        (InvalidRequest(), 4),
        (Unauthenticated(), 4),
        (ServiceUnavailable(), 5),
        (StorageFull(), 5),
        (DamagedDownload("x"), 5),
        (OutputMissing(), 6),
        (TaskPending(), 7),
        (WaitTimeout("x"), 7),
        (Interrupted("x"), 130),
    ],
)
def test_each_error_has_its_exit_code(error: ReportedError | OSError, code: int) -> None:
    assert exit_code_of(error) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [(server.TaskPending(), 7), (server.OutputMissing(), 6), (server.TaskNotFound(), 3), (server.TaskFailed(), 1)],
)
def test_fetch_answers_the_polling_codes(
    infer: Infer, peer: Peer, tmp_path: Path, error: server.InferenceError, code: int
) -> None:
    peer.plan("GET", f"/api/tasks/{UID}/output", *[Answer.of(error)] * 2)
    assert infer("fetch", UID, "-o", tmp_path)[0] == code
    assert json.loads(infer("fetch", UID, "-o", tmp_path, "--json")[1]) == error.to_body()


def test_waiting_too_long_is_told_with_the_uid(infer: Infer, peer: Peer) -> None:
    code, out, _ = infer("wait", UID, "--timeout", "0s", "--json")
    assert code == ExitCode.NOT_ENDED
    assert json.loads(out) == {
        "error": "WaitTimeout",
        "detail": "the task has not ended within 0s; it goes on",
        "uid": UID,
        "status": "queued",
    }


def test_every_exit_code_stands_in_the_help(infer: Infer) -> None:
    code, out, _ = infer("--help")
    assert code == 0
    assert set(MEANINGS) == set(ExitCode)
    for number, meaning in MEANINGS.items():
        assert f"{number.value}  {meaning}" in out


@pytest.mark.parametrize("columns", ["20", "200"])
@pytest.mark.parametrize("color", [{"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}])
@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "list"],
        ["models", "show", MODEL],
        ["models", "add", "example/echo:1", MODEL],
        ["models", "versions", MODEL],
        ["models", "rollback", MODEL],
        ["models", "default", f"{MODEL}@1"],
        ["models", "retire", f"{MODEL}@1"],
        ["models", "describe", MODEL, "text"],
        ["models", "delete", MODEL],
        ["models", "default", MODEL],
        ["status", UID],
        ["wait", UID],
        ["fetch", UID, "-o", "."],
        ["logs", UID],
        ["cancel", UID],
        ["delete", UID],
        ["list"],
        ["history", UID],
        ["queue"],
        ["consumers"],
        ["submit", MODEL, "scan"],
        ["submit", MODEL, "scan", "-o", "out.zip"],
        ["submit", MODEL, "missing"],
        ["models", "show", "nobody"],
        ["models", "show"],
        ["nonsense"],
    ],
)
def test_json_is_exactly_one_document_whatever_the_terminal(
    infer: Infer,
    peer: Peer,
    scan: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    arguments: list[str],
    color: dict[str, str],
    columns: str,
) -> None:
    monkeypatch.chdir(scan.parent)
    monkeypatch.setenv("COLUMNS", columns)
    for name, value in color.items():
        monkeypatch.setenv(name, value)
    peer.views = deque([FINISHED])
    peer.tasks = [FINISHED]
    peer.log = b"caf\xe9 \xff\n" * 100
    code, out, err = infer(*arguments, "--json")
    document = json.loads(out)
    assert ("error" in document) == (code != 0)
    assert err == ""


def test_a_file_called_json_asks_for_no_json(
    infer: Infer, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("--json").write_bytes(b"{}")
    assert infer("submit", MODEL, "--", "--json")[:2] == (0, f"{UID}\n")


def test_what_consumers_found_of_an_image_is_shown_at_registration_and_later(infer: Infer, peer: Peer) -> None:
    warning = "1 of the 3 consumers that take its tasks do not get its image: no registry could be reached"
    lost = {"consumer": "b", "finding": "not_found", "detail": "no registry could be reached", "found_at": None}
    images = [{"consumer": "a", "finding": "present"}, lost, {"consumer": "c", "finding": "of a newer server"}]
    peer.models = [model_view(warnings=[warning], images=images)]
    code, out, err = infer("models", "add", "example/echo:1", MODEL)
    assert (code, out) == (0, f"{MODEL}\n")
    assert f"warning: {warning}" in err
    shown = infer("models", "show", MODEL)[1]
    assert "not found: no registry could be reached" in shown
    assert warning in shown
    assert "1 not found, 1 of a newer server, 1 present" in infer("models", "list")[1]


def test_tables_are_never_cut(infer: Infer, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    peer.tasks = [FINISHED]
    assert UID in infer("list")[1]
    assert "example/echo:1" in infer("models", "list")[1]
    assert UID in infer("status", UID)[1]


def test_list_filters_and_shows_whose_tasks_they_are(infer: Infer, peer: Peer) -> None:
    peer.tasks = [task_view(uid="1" * 64, owner="ada"), task_view(uid="2" * 64)]
    code, out, _ = infer("list", "--all", "--status", "failed", "--model", MODEL, "--since", "2d", "--search", "x y")
    assert code == 0
    assert [line.split()[-1] for line in out.splitlines()] == ["OWNER", "ada", "-"]
    query = peer.seen[-1].query
    age = datetime.now(UTC) - datetime.fromisoformat(query.pop("since"))
    assert age.days == 2
    assert query == {"limit": "100", "status": "failed", "model": MODEL, "owner": "*", "q": "x y"}
    infer("list", "--owner", "ada", "--since", "2026-11-21T07:00Z")
    assert peer.seen[-1].query == {"limit": "100", "owner": "ada", "since": peer.seen[-1].query["since"]}
    assert datetime.fromisoformat(peer.seen[-1].query["since"]) == datetime(2026, 11, 21, 7, tzinfo=UTC)
    peer.tasks = [task_view(owner="ada")]
    assert "OWNER" not in infer("list")[1]


def test_queue_shows_the_lanes_and_the_tasks_that_the_key_may_see(infer: Infer, peer: Peer) -> None:
    lane = {
        "kind": "gpu",
        "queued": 2,
        "held": 0,
        "consumers": 0,
        "free": 0,
        "oldest_queued_at": "2024-05-01T12:00:00Z",
    }
    peer.queue["lanes"] = [{**lane, "waits_for": "consumer", "wait_detail": "no consumer with a GPU is there"}]
    code, out, _ = infer("queue")
    assert code == 0
    assert [line.split()[:5] for line in out.splitlines()] == [
        ["KIND", "WAITING", "HELD", "CONSUMERS", "FREE"],
        ["gpu", "2", "0", "0", "0"],
    ]
    assert out.endswith(" ago  no consumer with a GPU is there\n")
    task = {**task_view(owner="ada"), "kind": "gpu", "priority": 0, "position": 1, "consumer": None}
    peer.queue["tasks"] = [task]
    assert infer("queue")[1].splitlines()[-1].split() == ["gpu", "1", UID, MODEL, "queued", "ada", "-"]
    assert json.loads(infer("queue", "--json")[1])["tasks"][0]["position"] == 1


def test_history_shows_changes_and_attempts(infer: Infer, peer: Peer) -> None:
    event = {"at": "2024-05-01T12:00:00Z", "old_status": None, "new_status": "queued", "fence": 0, "reason": None}
    peer.events = [event, {**event, "old_status": "queued", "new_status": "failed", "fence": 2, "reason": "exit_code"}]
    code, out, _ = infer("history", UID)
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["AT", "STATUS", "FENCE", "REASON"],
        ["2024-05-01T12:00:00Z", "queued", "0", "-"],
        ["2024-05-01T12:00:00Z", "failed", "2", "exit_code"],
    ]
    attempt = dict.fromkeys(("gpu_uuid", "replica_uid", "detail"), None)
    attempt |= {"fence": 2, "consumer": "host-a/0", "claimed_at": event["at"], "ended_at": "2024-05-01T12:01:05Z"}
    peer.attempts = [{**attempt, "outcome": "exit_code"}, {**attempt, "outcome": None, "ended_at": None}]
    ended, open_ = infer("history", UID)[1].splitlines()[-2:]
    assert ended.split() == ["2", "host-a/0", "2024-05-01T12:00:00Z", "1m", "05s", "exit_code", "-"]
    assert open_.split() == ["2", "host-a/0", "2024-05-01T12:00:00Z", "-", "-", "-"]
    assert set(json.loads(infer("history", UID, "--json")[1])) == {"uid", "events", "attempts"}


def test_consumers_are_listed_with_what_they_run_and_why_they_take_nothing(infer: Infer, peer: Peer) -> None:
    moment = "2024-05-01T12:00:00Z"
    warm = {"human_readable_id": "warm", "status": "ready", "use_gpu": True, "share_gpu": False}
    peer.consumers = [
        {
            "name": f"host-a/{number}",
            "owner": None,
            "kinds": ["cpu", "gpu"],
            "gpu_uuid": "GPU-1",
            "host": "node-1",
            "status": "busy",
            "detail": "it runs\x1b[2J one task at a time",
            "task": {"uid": UID, "owner": "ada", "human_readable_id": MODEL, "phase": "running", "claimed_at": moment},
            "replicas": [warm],
            "replica_slots": 8,
            "first_seen_at": moment,
            "seen_at": moment,
        }
        for number in range(2)
    ]
    code, out, _ = infer("consumers")
    assert code == 0
    for number, line in enumerate(out.splitlines()[1:]):
        assert line.startswith(f"host-a/{number}  node-1  gpu+cpu  GPU-1  busy  ")
        assert f"ago  {MODEL}, warm (warm)  it runs" in line
    assert "\x1b" not in out
    assert [each["name"] for each in json.loads(infer("consumers", "--json")[1])] == ["host-a/0", "host-a/1"]


@pytest.mark.parametrize("arguments", [["--since", "yesterday"], ["--since", "9" * 20], ["--all", "--owner", "ada"]])
def test_a_bad_filter_is_refused_before_anything_is_sent(infer: Infer, peer: Peer, arguments: list[str]) -> None:
    code, out, err = infer("list", *arguments)
    assert (code, out) == (ExitCode.USAGE, "")
    assert arguments[1] in err or "--owner" in err
    assert peer.seen == []


def test_a_log_comes_byte_by_byte_only_if_asked_for(infer: Infer, peer: Peer) -> None:
    peer.log = b"\x00\xff raw\n"
    command = [sys.executable, "-m", "inference_client", "logs", UID]
    assert subprocess.run(command, capture_output=True, check=True).stdout.decode() == "\ufffd\ufffd raw\n"
    assert subprocess.run([*command, "--raw"], capture_output=True, check=True).stdout == peer.log
    assert infer("logs", UID, "--raw", "--json")[0] == ExitCode.USAGE


def test_a_reader_that_has_seen_enough_is_no_error(peer: Peer) -> None:
    peer.log = b"line\n" * 1_000_000
    with subprocess.Popen(
        [sys.executable, "-m", "inference_client", "logs", UID], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_models_add_sends_what_the_options_say(infer: Infer, peer: Peer, scan: Path) -> None:
    options = [
        "--gpu",
        "--time-limit",
        "2h",
        "--memory",
        "4GiB",
        "--shared-memory",
        "2GiB",
        "--temporary",
        "512MiB",
        "--pids-limit",
        "2048",
        "--cpus",
        "1.5",
        "--pull-policy",
        "never",
        "--replace",
        "--strict-output",
    ]
    code, out, _ = infer("models", "add", "example/echo:1", MODEL, "--archive-folder", scan, *options)
    assert (code, out) == (0, f"{MODEL}\n")
    assert peer.seen[0].query == {
        "human_readable_id": MODEL,
        "container_tag": "example/echo:1",
        "model_available": "true",
        "use_gpu": "true",
        "pull_policy": "never",
        "strict_output": "true",
        "time_limit_s": "7200",
        "memory_limit_bytes": str(4 * 2**30),
        "shared_memory_bytes": str(2 * 2**30),
        "temporary_bytes": str(2**29),
        "pids_limit": "2048",
        "cpus": "1.5",
        "replace": "true",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["image", "Not An Id"], "human_readable_id"),
        (["image", MODEL, "--time-limit", "soon"], "not a duration"),
        (["image", MODEL, "--memory", "much"], "not a size"),
        (["image", MODEL, "--shared-memory", "much"], "not a size"),
        (["image", MODEL, "--temporary", "much"], "not a size"),
        (["image", MODEL, "--pids-limit", "2"], "greater than or equal to 16"),
        (["image", MODEL, "--cpus", "0"], "greater than or equal to 0.01"),
        (["image", MODEL, "--pull-policy", "often"], "often"),
        (["image", MODEL, "--archive", "x.txt"], "not a zip file"),
        (["image", MODEL, "--archive", "x.txt", "--archive-folder", "."], "not both"),
    ],
)
def test_a_wrong_registration_is_refused_here(
    infer: Infer, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.txt").write_text("x")
    code, out, err = infer("models", "add", *options)
    assert (code, out) == (ExitCode.USAGE, "")
    assert message in err
    assert peer.seen == []


def test_an_unreachable_server_is_named(infer: Infer, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference_client.connection.FIRST_PAUSE_S", 0.0)
    monkeypatch.setenv("INFERENCE_SERVER_URL", "http://127.0.0.1:1")
    code, out, err = infer("list")
    assert (code, out) == (ExitCode.SERVER, "")
    assert "http://127.0.0.1:1 cannot be reached" in err


def test_options_before_the_command_win(infer: Infer, peer: Peer) -> None:
    infer("--key", "other", "list")
    assert peer.seen[0].headers["x-api-key"] == "other"


# Ctrl-C


class Watcher(Display):
    """A display whose user presses Ctrl-C at the first change, and can be asked or not."""

    def __init__(self, *, can_ask: bool) -> None:
        super().__init__(quiet=True)
        self._can_ask = can_ask

    @property
    def can_ask(self) -> bool:
        return self._can_ask


def interrupt_a_wait(peer: Peer, monkeypatch: pytest.MonkeyPatch, *, can_ask: bool, answer: Any = None) -> None:
    def on_wait(*_: Any, on_change: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def on_ask(*_: Any, **__: Any) -> bool:
        if isinstance(answer, type):
            raise answer
        return bool(answer)

    monkeypatch.setattr(typer, "confirm", on_ask)
    with InferenceClient(peer.url) as client:
        monkeypatch.setattr(client, "wait", on_wait)
        results.wait_for_end(client, Watcher(can_ask=can_ask), UID, None)


def test_an_interrupted_wait_without_a_terminal_leaves_the_task_running(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted, match=f"infer wait {UID}"):
        interrupt_a_wait(peer, monkeypatch, can_ask=False, answer=True)
    assert peer.seen == []


def test_an_interrupted_wait_asks_and_no_leaves_the_task_running(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted, match=f"infer wait {UID}"):
        interrupt_a_wait(peer, monkeypatch, can_ask=True, answer=False)
    assert peer.seen == []


def test_an_interrupted_wait_asks_and_yes_cancels_the_task(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TaskFailed) as caught:
        interrupt_a_wait(peer, monkeypatch, can_ask=True, answer=True)
    assert exit_code_of(caught.value) == ExitCode.CANCELLED
    assert [seen.path for seen in peer.seen] == [f"/api/tasks/{UID}/cancel"]


def test_a_task_that_ended_before_the_yes_is_not_called_cancelled(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.plan("POST", f"/api/tasks/{UID}/cancel", Answer(body=json.dumps(FINISHED).encode()))
    with pytest.raises(Interrupted, match=f"infer fetch {UID}"):
        interrupt_a_wait(peer, monkeypatch, can_ask=True, answer=True)


def test_a_second_ctrl_c_at_the_question_leaves_at_once(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(typer.Abort):
        interrupt_a_wait(peer, monkeypatch, can_ask=True, answer=typer.Abort)
    assert peer.seen == []


# A child of a shell's background job would inherit an ignored SIGINT.
CATCHING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from inference_client.cli import main\nmain()"
)


@pytest.mark.parametrize("as_json", [False, True])
def test_sigint_ends_a_wait_with_130_and_says_how_to_go_on(peer: Peer, as_json: bool) -> None:
    command = [sys.executable, "-c", CATCHING, "wait", UID, *(["--json"] if as_json else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert peer.asked.wait(60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    if as_json:
        assert json.loads(out)["uid"] == UID
        assert err == b""
    else:
        assert out == b""
        assert f"infer wait {UID}" in err.decode()
    assert not [seen for seen in peer.seen if seen.method == "POST"]


def test_on_a_terminal_ctrl_c_asks_and_y_cancels(peer: Peer) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", CATCHING, "wait", UID]
    with subprocess.Popen(command, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE) as process:
        os.close(theirs)
        assert peer.asked.wait(60)
        process.send_signal(signal.SIGINT)
        shown = b""
        while b"Cancel the task?" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, b"y\n")
        process.wait(timeout=60)
        # Not before, or the child would lose its terminal.
        os.close(ours)
    assert process.returncode == ExitCode.CANCELLED
    assert peer.calls("POST", f"/api/tasks/{UID}/cancel")
