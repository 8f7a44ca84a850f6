"""Many tasks as one with `infer`: submitted together under a label, listed, counted and cancelled by it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_client.cli.exit_codes import ExitCode
from tests.integration.infer_harness import Server, User, serve


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def anybody(server: Server, tmp_path: Path) -> User:
    return User(tmp_path / "home", INFERENCE_SERVER_URL=server.url)


@pytest.fixture
def ada(server: Server, tmp_path: Path) -> User:
    return User(tmp_path / "home", INFERENCE_SERVER_URL=server.url, INFERENCE_SERVER_KEY=server.key)


def cases(user: User, *names: str) -> list[str]:
    for name in names:
        (user.home / name).write_text(name)
    return [str(user.home / name) for name in names]


def test_each_path_becomes_a_task_of_one_label(ada: User) -> None:
    ended = ada.pipes("submit", "echo", *cases(ada, "a", "b", "c"), "--each", "--label", "study 7")
    assert (ended.returncode, "label: study 7" in ended.stderr) == (ExitCode.OK, True), ended.stderr
    uids = ended.stdout.split()
    assert len(uids) == 3
    other = ada.submits("echo")

    listed = json.loads(ada.pipes("list", "--label", "study 7", "--json").stdout)
    assert [(task["uid"], task["label"]) for task in listed] == [(uid, "study 7") for uid in reversed(uids)]
    assert "label" in ada.pipes("status", uids[0]).stdout
    assert "LABEL" in ada.pipes("list").stdout
    counted = ada.pipes("status", "--label", "study 7")
    assert counted.stdout == "STATUS  TASKS\nqueued  3\n"

    cancelled = json.loads(ada.pipes("cancel", "--label", "study 7", "--json").stdout)
    assert cancelled == {"label": "study 7", "tasks": {"cancelled": 3}}
    assert json.loads(ada.pipes("status", other, "--json").stdout)["status"] == "queued"


def test_without_a_key_a_label_means_what_was_submitted_from_here(anybody: User) -> None:
    ended = anybody.pipes("submit", "echo", *cases(anybody, "a", "b"), "--each")
    label = ended.stderr.splitlines()[0].removeprefix("label: ")
    assert label.startswith("echo ")
    assert json.loads(anybody.pipes("cancel", "--label", label, "--json").stdout)["tasks"] == {"cancelled": 2}
    unknown = anybody.pipes("status", "--label", "nothing")
    assert (unknown.returncode, unknown.stderr) == (
        ExitCode.NOT_FOUND,
        "infer: none of your tasks has the label 'nothing'\n",
    )


def test_a_case_that_cannot_be_sent_stops_no_other(anybody: User) -> None:
    first, last = cases(anybody, "a", "b")
    nowhere = str(anybody.home / "nowhere")
    ended = anybody.pipes("submit", "echo", first, nowhere, last, "--each")
    assert ended.returncode == ExitCode.TASK_FAILED
    assert len(ended.stdout.split()) == 2
    assert f"warning: {nowhere}: {nowhere} does not exist" in ended.stderr
    told = json.loads(anybody.pipes("submit", "echo", first, nowhere, "--each", "--json").stdout)
    assert [case["case"] for case in told["cases"]] == [first, nowhere]
    assert (len(told["cases"][0]["uid"]), told["cases"][1]["error"]["error"]) == (64, "UnusableInput")


def test_a_mistyped_model_is_answered_once(anybody: User) -> None:
    ended = anybody.pipes("submit", "ecko", *cases(anybody, "a", "b"), "--each")
    assert ended.returncode == ExitCode.NOT_FOUND
    assert ended.stderr.count("Did you mean: echo?") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cancel",), "give a UID or --label"),
        (("status", "abcd", "--label", "x"), "give a UID or --label"),
        (("submit", "echo", "a", "b", "--each", "--timeout", "3"), "--each goes without"),
        (("submit", "echo", "a", "a", "--each"), "named twice"),
        (("submit", "echo", "a", "x/a", "--each", "-o", "out"), "several outputs would be out/a.zip"),
        (("submit", "echo", "a", "--label", "two\nlines"), "label"),
    ],
)
def test_what_cannot_be_meant_is_said(
    anybody: User, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    cases(anybody, "a", "b")
    monkeypatch.chdir(anybody.home)
    ended = anybody.pipes(*arguments)
    assert ended.returncode in (ExitCode.USAGE, ExitCode.REFUSED)
    assert said in " ".join(ended.stderr.replace("│", " ").split())
