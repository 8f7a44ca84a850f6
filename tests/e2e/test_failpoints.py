"""A service that fails at any step of a task's life changes nothing: the task finishes once, and nothing is left.

Private API, public API and consumer are processes, over PostgreSQL, RabbitMQ and the Docker Engine. Only the service
that fails is started again.
"""

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, create_engine, text

from job_consumer.failpoints import Failpoint as ConsumerPoint
from kit.failpoints import VARIABLE, Action
from private_api.failpoints import Failpoint as ApiPoint
from tests.databases import PostgresServer
from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import script_image
from tests.e2e.systems import Process, System, leftovers, services_system
from tests.forks import fork_server
from tests.services import require_docker, require_rabbitmq
from tests.waiting import START_S, wait_until
from tests.zips import make_zip, read_zip

POINTS = [*(("private_api", point) for point in ApiPoint), *(("job_consumer", point) for point in ConsumerPoint)]
RAISED = (ApiPoint.SUBMIT_STORED, ApiPoint.COMMIT_WRITTEN, ConsumerPoint.RUN_CREATED, ConsumerPoint.DELIVER_UPLOADED)
"""Where a run of all tests raises, too; `make failpoints` does so at every point."""
CASES = [
    (service, point, action)
    for service, point in POINTS
    for action in (Action.KILL9, Action.RAISE)
    if action is Action.KILL9 or point in RAISED or os.environ.get("FAILPOINTS") == "all"
]


@dataclass
class Stack:
    """A running server, and what a test sees and does of it past its door."""

    system: System
    door: DoorClient
    database: Engine
    model: str

    def process(self, service: str) -> Process:
        """The process of a service."""
        found = next(process for process in self.system.processes if process.name == service)
        assert isinstance(found, Process)
        return found

    def arm(self, service: str, point: StrEnum, action: Action) -> None:
        """Start a service again, so that it fails at the point."""
        process = self.process(service)
        process.kill()
        process.environment[VARIABLE] = f"{point}:{action}"
        process.start()
        del process.environment[VARIABLE]

    def tend(self, uid: str = "") -> None:
        """What time would do, without waiting for it: a supervisor restarts what died; pauses end."""
        for process in (self.process("private_api"), self.process("job_consumer")):
            if not process.is_alive:
                process.start()
        with self.database.begin() as connection:
            for statement in (
                "UPDATE tasks SET not_before = now() WHERE uid = :uid AND status = 'queued' AND not_before > now()",
                "UPDATE outbox SET due_at = now() WHERE uid = :uid AND due_at > now()",
            ):
                connection.execute(text(statement), {"uid": uid})

    def submit(self, data: bytes) -> str:
        """Submit until the server answers with a uid, as `infer` does."""
        query, key = {"human_readable_id": self.model}, secrets.token_hex(8)
        headers = {"Content-Type": "application/zip", "Idempotency-Key": key}
        answers: list[httpx.Response] = []

        def post() -> bool:
            self.tend()
            answers.append(self.door.http.post("/api/tasks/", params=query, content=data, headers=headers))
            return answers[-1].status_code < 500

        wait_until(post, lambda: f"{answers[-1].text}\n{self.system.logs()}", within_s=START_S)
        assert answers[-1].status_code == 200, answers[-1].text
        return str(answers[-1].json())

    def result(self, uid: str) -> dict[str, bytes]:
        """The output, once the task has ended."""
        answers: list[httpx.Response] = []

        def poll() -> bool:
            self.tend(uid)
            answers.append(self.door.http.get(f"/api/tasks/{uid}", params={"wait": 1}))
            return answers[-1].status_code not in (500, 502, 503, 551)

        wait_until(poll, lambda: f"{answers[-1].text}\n{self.system.logs()}", within_s=START_S)
        assert answers[-1].status_code == 200, answers[-1].text
        return read_zip(answers[-1].content)

    def ends(self, uid: str) -> list[str]:
        """Every end that the task ever had."""
        with self.database.connect() as connection:
            query = (
                "SELECT new_status FROM events JOIN tasks ON tasks.id = task_id"
                " WHERE uid = :uid AND new_status IN ('finished', 'failed', 'cancelled')"
            )
            return list(connection.execute(text(query), {"uid": uid}).scalars())

    def left(self) -> list[str]:
        """Containers, volumes and workspaces that exist while no task runs."""
        return leftovers(self.system) + [str(path) for path in (self.system.work_dir / "attempts").glob("*/*")]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Stack]:
    require_docker()
    require_rabbitmq()
    name = postgres.create()
    url = postgres.url_of(name)
    image = script_image("cat /input/number > /output/number")
    engine = create_engine(url)
    with fork_server() as forks:

        def forked(service: str, command: list[str], environment: dict[str, str], log: Path) -> Process:
            return Process(service, command, environment, log, launch=forks.start)

        folder = tmp_path_factory.mktemp("failpoints")
        with services_system(folder, url, process=forked) as system, door_of(system.url) as door:
            yield Stack(system, door, engine, door.add_model(image))
    engine.dispose()
    postgres.drop(name)


@pytest.mark.parametrize(("service", "point", "action"), CASES)
def test_a_task_ends_once_wherever_a_service_fails(stack: Stack, service: str, point: StrEnum, action: Action) -> None:
    stack.arm(service, point, action)
    process = stack.process(service)
    said = f"{VARIABLE}={point}:{action}: failing on purpose"
    before = process.output().count(said)
    number = secrets.token_hex(8).encode()
    uid = stack.submit(make_zip({"number": number}))
    assert stack.result(uid) == {"number": number}
    # Some points come after the end of the task.
    wait_until(lambda: process.output().count(said) == before + 1, stack.system.logs)
    assert stack.ends(uid) == ["finished"]

    def is_clean() -> bool:
        stack.tend(uid)
        return not stack.left()

    wait_until(is_clean, lambda: f"{stack.left()}\n{stack.system.logs()}")


def test_the_files_that_crashes_left_are_removed(stack: Stack) -> None:
    """A day later, and once every task is deleted."""
    archives = stack.system.data_dir / "archives"
    with stack.database.connect() as connection:
        uids = list(connection.execute(text("SELECT uid FROM tasks")).scalars())
    for path in (path for path in archives.rglob("*") if path.is_file()):
        os.utime(path, (0, 0))
    # The janitor looks for orphans at its start, and after that once an hour.
    api = stack.process("private_api")
    api.kill()
    api.start()
    wait_until(lambda: stack.door.http.get("/readyz").status_code == 200, stack.system.logs, within_s=START_S)
    for uid in uids:
        assert stack.door.http.delete(f"/api/tasks/{uid}").status_code == 204
    found: list[str] = []

    def is_clean() -> bool:
        found[:] = [str(path) for path in archives.rglob("*") if path.is_file()]
        return not found

    wait_until(is_clean, lambda: json.dumps(found))
