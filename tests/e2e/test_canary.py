"""What belongs to a task stays with it, and goes with it: a marked text is looked for in every place it could get to.

Private API, public API and consumer are processes that log all they can, over PostgreSQL, RabbitMQ and the Docker
Engine. That each place is really searched shows in that the mark, or where it never comes the task's uid, is found
there first.
"""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from contract.access import Scope
from private_api.archives import ArchiveStore
from private_api.backup.write import back_up
from private_api.database import Database
from private_api.keys import create_key
from private_api.task_logs import TaskLogs
from tests.canary import columns_with, files_with
from tests.databases import PostgresServer
from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import script_image
from tests.e2e.processes import Process
from tests.e2e.systems import System, containers, leftovers, services_system
from tests.services import BROKER_URL, require_docker, require_rabbitmq
from tests.tcp_proxy import TcpProxy
from tests.waiting import START_S, wait_until
from tests.zips import make_zip

MARK = "CANARY7f3a"
SCRIPT = f"""
cat /input/*
echo "progress 0.5 reading {MARK}"
cp /input/* /output/
ln -s /nowhere/{MARK} /output/{MARK}-link
case "$(ls /input)" in
    *fails) echo "{MARK}: No space left on device"; exit 3 ;;
    *waits) trap 'exit 1' TERM; sleep 600 & wait ;;
esac
"""
KINDS = "finishes", "fails", "waits", "rejected"


@dataclass(frozen=True)
class Canary:
    """A server in which four tasks with marked files ran, or run, and whoever asks it."""

    system: System
    database: Database
    callers: Mapping[str, httpx.Client]
    uids: Mapping[str, str]
    heard: bytearray
    """All that went to and from the broker."""

    @property
    def engine(self) -> Engine:
        return self.database.engine

    def answer(self, caller: str, path: str) -> httpx.Response:
        return self.callers[caller].get(path)

    def back_up(self, folder: Path) -> Path:
        """A backup made now."""
        data = self.system.data_dir
        back_up(self.database, ArchiveStore(data / "archives"), TaskLogs(data / "logs"), folder)
        return folder

    def paths_of(self, kind: str) -> list[str]:
        """What can be read of one task."""
        parts = ("", "/status", "/logs", "/events", "/attempts", "/input/files", "/output/files")
        return [f"/api/tasks/{self.uids[kind]}{part}" for part in parts]


def talkative(name: str, command: list[str], environment: Mapping[str, str], log: Path) -> Process:
    return Process(name, command, {**environment, "LOG_LEVEL": "DEBUG"}, log)


def submit(door: DoorClient, model: str, kind: str, key: str) -> str:
    content = make_zip({f"{MARK}-{kind}": f"of {MARK}\n".encode()}, method=zipfile.ZIP_STORED)
    answer = door.http.post(
        "/api/tasks/",
        params={"human_readable_id": model, "label": f"{MARK} {kind}"},
        content=content,
        headers={"Content-Type": "application/zip", "Idempotency-Key": f"{MARK}-{kind}", "X-API-Key": key},
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json())


@pytest.fixture
def canary(tmp_path: Path, postgres: PostgresServer) -> Iterator[Canary]:
    require_docker()
    require_rabbitmq()
    name, heard = postgres.create(), bytearray()
    database = Database(postgres.url_of(name))
    try:
        (tmp_path / "server").mkdir()
        with (
            TcpProxy(BROKER_URL, 5672, heard=heard) as proxy,
            services_system(tmp_path / "server", database.url, broker_port=proxy.port, process=talkative) as system,
            door_of(system.url) as door,
            callers_of(system, database) as callers,
        ):
            ada = callers["owner"].headers["X-API-Key"]
            image = script_image(SCRIPT)
            lenient, strict = door.add_model(image), door.add_model(image, strict_output="true")
            # The one that does not end is the last.
            models = {"finishes": lenient, "fails": lenient, "rejected": strict, "waits": lenient}
            uids = {kind: submit(door, model, kind, ada) for kind, model in models.items()}
            made = Canary(system, database, callers, uids, heard)
            for kind in KINDS:
                wait_until(lambda kind=kind: has_come_so_far(made, kind), system.logs, within_s=START_S)  # type: ignore[misc]
            yield made
    finally:
        database.close()
        postgres.drop(name)


@contextmanager
def callers_of(system: System, database: Database) -> Iterator[dict[str, httpx.Client]]:
    owners = {
        "owner": ("ada", Scope.SUBMIT),
        "another owner": ("bob", Scope.SUBMIT),
        "operator": ("olga", Scope.OPERATE),
    }
    headers = {
        caller: {"X-API-Key": create_key(database, owner=owner, scopes=[scope], lifetime=None)}
        for caller, (owner, scope) in owners.items()
    }
    made = {
        caller: httpx.Client(base_url=system.url, headers=each, timeout=60, trust_env=False)
        for caller, each in {**headers, "nobody": {}}.items()
    }
    yield made
    for client in made.values():
        client.close()


def has_come_so_far(canary: Canary, kind: str) -> bool:
    told = canary.answer("owner", f"/api/tasks/{canary.uids[kind]}/status").json()
    if kind == "waits":
        return bool(told["progress_text"])
    return bool(told["ended_at"])


def search_answers(canary: Canary) -> None:
    """To whom the server tells what."""
    told = {(caller, path): canary.answer(caller, path).text for caller in canary.callers for path in paths(canary)}
    marked = {where for where, text in told.items() if MARK in text}
    failed, finished, waits, rejected = (canary.paths_of(kind) for kind in ("fails", "finishes", "waits", "rejected"))
    poll, status, logs, _, attempts, inputs, outputs = range(7)
    seen = {
        *(failed[part] for part in (poll, status, logs, attempts, inputs, outputs)),
        *(finished[part] for part in (poll, status, logs, inputs, outputs)),
        *(waits[part] for part in (status, logs, inputs)),
        *(rejected[part] for part in (poll, status, logs, attempts, inputs, outputs)),
        "/api/tasks/",
    }
    # The whole zip of an output is for operators, too.
    assert marked == {("owner", path) for path in seen} | {("operator", finished[poll])}
    assert "openapi" in told["nobody", "/docs"]


def paths(canary: Canary) -> list[str]:
    common = (
        "/api/tasks/",
        "/api/queue",
        "/api/consumers/",
        "/api/models/",
        "/api/deployments/",
        "/docs",
        "/openapi.json",
    )
    return [*common, *(path for kind in KINDS for path in canary.paths_of(kind))]


def make_mistakes(canary: Canary) -> None:
    """What a user does wrong is told to that user, and to nobody else."""
    owner = canary.callers["owner"]
    bad = owner.post(
        "/api/tasks/",
        params={"human_readable_id": "nobody"},
        content=make_zip({f"../{MARK}": b""}),
        headers={"Content-Type": "application/zip", "Idempotency-Key": MARK},
    )
    assert bad.status_code == 550
    model = owner.get(f"/api/tasks/{canary.uids['fails']}/status").json()["human_readable_id"]
    bad = owner.post(
        "/api/tasks/",
        params={"human_readable_id": model},
        content=make_zip({f"../{MARK}": b""}),
        headers={"Content-Type": "application/zip"},
    )
    assert bad.status_code == 422
    assert MARK in bad.text
    missing = canary.answer("owner", f"/api/tasks/{canary.uids['finishes']}/output/files/{MARK}-missing")
    assert missing.status_code == 404


def test_what_belongs_to_a_task_stays_with_it_and_goes_with_it(canary: Canary, tmp_path: Path) -> None:
    system = canary.system
    search_answers(canary)
    make_mistakes(canary)
    assert columns_with(canary.engine, MARK) == {
        *("tasks.label", "tasks.owner_idempotency_key", "tasks.progress_text", "tasks.detail", "tasks.warnings"),
        "attempts.detail",
    }
    assert {path.partition("/")[0] for path in files_with(system.data_dir, MARK)} == {"archives", "logs"}
    before = files_with(canary.back_up(tmp_path / "before"), MARK)
    assert {"tables/tasks.jsonl", "tables/attempts.jsonl"} < before
    assert {path.partition("/")[0] for path in before} == {"tables", "archives", "logs"}
    assert any(path.endswith(f"input/{MARK}-waits") for path in files_with(system.work_dir, MARK))
    assert containers(system)

    for uid in canary.uids.values():
        assert canary.callers["owner"].delete(f"/api/tasks/{uid}").status_code == 204

    def left() -> set[str]:
        found = columns_with(canary.engine, MARK) | files_with(system.data_dir, MARK)
        return found | files_with(system.work_dir, MARK) | set(leftovers(system))

    # A task that ran is forgotten with the janitor's next step, a minute later at most.
    wait_until(lambda: not left(), lambda: f"{left()}\n{system.logs()}", within_s=START_S)
    after = canary.back_up(tmp_path / "after")
    assert files_with(after, MARK) == set()
    assert "tables/tasks.jsonl" in files_with(after, canary.uids["fails"])
    for caller in canary.callers:
        assert not any(MARK in canary.answer(caller, path).text for path in paths(canary))

    for process in reversed(system.processes):
        process.end()
    logs = {process.name: process.output() for process in system.processes}
    assert [name for name, log in logs.items() if MARK in log] == []
    for kind, uid in canary.uids.items():
        assert f"task={uid}" in logs["private_api"]
        # A consumer has nothing to say of a task that finishes.
        assert f"task={uid}" in logs["job_consumer"] or kind == "finishes"
        assert uid.encode() in canary.heard
    assert logs["public_api"]
    assert MARK.encode() not in canary.heard
    assert files_with(tmp_path / "server", MARK) == set()
