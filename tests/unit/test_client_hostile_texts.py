"""Whatever a model, its owner or a server says of itself, `infer` shows it without a command to the terminal."""

import ast
import json
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_client import cli
from inference_client.errors import ReportedError
from tests.unit.client_peer import (
    MODEL,
    UID,
    Answer,
    Peer,
    model_view,
    running_peer,
    task_view,
    version_view,
)

BAD = "a\x1b[2J\x1b]0;b\x07\x9b31m\u202e\x08\x7f\nforged c"
AT = "2024-05-01T12:00:00Z"
CLIENT = Path(__file__).parents[2] / "inference_client"

Infer = Callable[..., str]


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Peer]:
    with running_peer() as peer:
        monkeypatch.setenv("INFERENCE_SERVER_URL", peer.url)
        monkeypatch.setenv("INFERENCE_SERVER_KEY", "the-key")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        monkeypatch.chdir(tmp_path)
        yield peer


@pytest.fixture
def infer(peer: Peer, capfd: pytest.CaptureFixture[str]) -> Infer:
    def call(*arguments: str) -> str:
        cli.run(arguments)
        return "".join(capfd.readouterr())

    return call


def task(**fields: Any) -> dict[str, Any]:
    texts = dict.fromkeys(("human_readable_id", "owner", "label", "detail", "image", "consumer", "log_tail"), BAD)
    return (
        task_view(**texts, wait_detail=BAD, progress=0.5, progress_text=BAD, warnings=[BAD], warning_count=1) | fields
    )


def consumer() -> dict[str, Any]:
    runs = {"uid": UID, "owner": BAD, "human_readable_id": BAD, "phase": "running", "claimed_at": AT}
    hosts = {"human_readable_id": BAD, "status": "ready", "use_gpu": True, "share_gpu": False}
    texts = dict.fromkeys(("name", "owner", "gpu_uuid", "host", "detail"), BAD)
    times = {"first_seen_at": AT, "seen_at": AT}
    return texts | times | {"kinds": ["cpu"], "status": "busy", "task": runs, "replicas": [hosts], "replica_slots": 1}


def deployment() -> dict[str, Any]:
    names = dict.fromkeys(("prefix", "application"), BAD)
    serving = {"port": 1, "applications": [BAD], "model_names": [BAD], "unrouted_model_names": [BAD], **names}
    replica = dict.fromkeys(("summary", "detail", "consumer", "address"), BAD)
    replica |= {"uid": BAD, "model_version": 1, "status": "ready", "created_at": AT}
    texts = dict.fromkeys(("human_readable_id", "owner", "summary", "detail"), BAD)
    counts = {"model_version": 1, "failures": 1, "status": "ready", "created_at": AT, "updated_at": AT}
    return {**texts, **counts, "serving": serving, "replicas": [replica]}


def model() -> dict[str, Any]:
    texts = dict.fromkeys(("human_readable_id", "container_tag", "description", "owner", "pinned_image"), BAD)
    images = [{"consumer": BAD, "finding": "not_found", "detail": BAD, "found_at": AT}]
    return model_view(**texts, images=images, warnings=[BAD], restricted=True, users=[BAD])


def plan(peer: Peer) -> None:
    """Every answer of the peer says `BAD` wherever it may say anything."""
    said = lambda value: Answer(body=json.dumps(value).encode())  # noqa: E731
    change = {"at": AT, "old_status": None, "new_status": "queued", "fence": 0, "reason": None, "rerun_of": BAD}
    attempt = dict.fromkeys(("consumer", "gpu_uuid", "replica_uid", "image", "outcome", "detail"), BAD)
    lane = {"kind": "cpu", "queued": 1, "held": 0, "consumers": 0, "free": 0, "waits_for": None, "wait_detail": BAD}
    waits = {"kind": "cpu", "priority": 0, "status": "queued", "position": 0, "created_at": AT}
    waits |= dict.fromkeys(("owner", "human_readable_id", "consumer"), BAD)
    told = {"uid": UID, "owner": BAD, "human_readable_id": BAD, "progress": 0.5, "progress_text": BAD}
    stream = [("consumer", consumer()), ("deployment", {"human_readable_id": BAD, "deployment": deployment()})]
    stream += [("progress", told), ("task", {**told, **change})]
    key = {"id": BAD, "owner": BAD, "scopes": [BAD], "state": "valid", "created_at": AT, "expires_at": AT}
    key |= {"revoked_at": None, "last_used_at": None}
    peer.views = deque([task(), task(status="failed", reason="exit_code")])
    peer.tasks, peer.models = [task()], [model()]
    peer.versions = [version_view(container_tag=BAD, description=BAD)] * 2
    peer.consumers, peer.queue = [consumer()], {"lanes": [lane], "tasks": [{"uid": UID, **waits}]}
    peer.events, peer.attempts = [change], [{**attempt, "fence": 1, "claimed_at": AT, "ended_at": AT}]
    peer.log = BAD.encode()
    refused = Answer(422, json.dumps({"error": "InvalidRequest", "detail": BAD, "request_id": BAD}).encode())
    peer.plan("GET", "/api/deployments/", said([deployment()]))
    peer.plan("GET", f"/api/deployments/{MODEL}", said(deployment()), refused)
    peer.plan("PUT", f"/api/deployments/{MODEL}", said(deployment()))
    peer.plan("POST", "/api/consumers/host/drain", said(consumer()))
    peer.plan("POST", f"/api/tasks/{UID}/rerun", said(BAD))
    peer.plan("POST", f"/api/tasks/{UID}/cancel", said(task()))
    peer.plan("GET", "/api/keys/", said([key]))
    peer.plan("POST", "/api/keys/", said({**key, "key": BAD}))
    rules = {"requires_key": False, "anonymous_scopes": [BAD], "expires_at": None}
    peer.plan("GET", "/api/me", said({"owner": BAD, "key_id": BAD, "scopes": [BAD], **rules}))
    for side in ("output", "input"):
        path = f"/api/tasks/{UID}/{side}/files"
        peer.plan("GET", path, said([{"path": BAD, "size_bytes": 1, "modified_at": AT}]))
    frames = "".join(f"id: 1\nevent: {kind}\ndata: {json.dumps(data)}\n\n" for kind, data in stream)
    peer.plan(
        "GET", "/api/events", Answer(body=frames.encode(), headers={"Content-Type": "text/event-stream"}), refused
    )


COMMANDS = (
    f"status {UID}|history {UID}|cancel {UID}|rerun {UID}|logs {UID}|files {UID}|files {UID} --input|wait {UID}"
    "|list|queue|consumers|drain host|watch|whoami|keys|keys create --scope submit"
    f"|models list|models show {MODEL}|models versions {MODEL}|models add image:1 {MODEL}|models share {MODEL} ada"
    f"|models give {MODEL} ada|models default {MODEL}@1|deploy {MODEL} --port 1|deployments|deployments {MODEL}"
).split("|")


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_shows_what_a_terminal_would_obey(infer: Infer, peer: Peer, command: str) -> None:
    plan(peer)
    shown = infer(*command.split())
    assert "c" in shown
    assert set(re.findall(r"[^\x20-\x7e\n\ufffd]", shown)) == set(), shown


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith(("logs", "wait"))])
def test_nothing_in_a_result_passes_for_a_line_of_its_own(
    capfd: pytest.CaptureFixture[str], peer: Peer, command: str
) -> None:
    plan(peer)
    cli.run(command.split())
    assert not [line for line in capfd.readouterr().out.splitlines() if line.startswith("forged")]


def test_the_shell_is_offered_nothing_that_a_terminal_would_obey(peer: Peer) -> None:
    peer.models = [model_view(description=BAD), model()]
    line = {"_INFER_COMPLETE": "complete_zsh", "COMP_WORDS": "infer submit ", "COMP_CWORD": "2"}
    line["_TYPER_COMPLETE_ARGS"] = line["COMP_WORDS"]
    command = [sys.executable, "-c", "from inference_client.cli import main; main()"]
    environment = {**os.environ, **line}
    offered = subprocess.run(
        command, env=environment, cwd=CLIENT.parent, capture_output=True, text=True, check=False
    ).stdout
    assert MODEL in offered
    assert set(re.findall(r"[^\x20-\x7e\n\ufffd]", offered)) == set()


def test_a_traceback_shows_nothing_that_a_terminal_would_obey() -> None:
    error = ReportedError(BAD)
    assert re.findall(r"[^\x20-\x7e\n\ufffd]", str(error)) == []
    # A program has what the server said.
    assert error.detail == BAD


def test_only_one_module_of_the_client_writes_to_stdout() -> None:
    assert {path.name for path in CLIENT.rglob("*.py") if _writes(path)} == {"output.py"}


def _writes(path: Path) -> bool:
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return any(ast.unparse(call) in ("print", "typer.echo", "sys.stdout.buffer.write") for call in calls)
