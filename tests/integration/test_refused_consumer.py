"""A consumer tells the private API of itself; a refused one says so in one line, is not healthy, keeps what it has."""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from contract.access import Scope
from job_consumer.engines.process.engine import ProcessEngine
from job_consumer.service import ConsumerOptions, run_consumer
from job_consumer.settings import Credential
from kit.healthcheck import main as check_health
from private_api.database import Database
from private_api.keys import create_key, revoke_key
from private_api.tables import ConsumerRow
from tests.limits import PROCESS_LIMITS
from tests.running_api import RunningApi, run_private_api
from tests.waiting import wait_until
from tests.zips import make_zip

MIB = 1024**2


@pytest.fixture
def api(sqlite_url: str, tmp_path: Path) -> Iterator[RunningApi]:
    with run_private_api(sqlite_url, tmp_path / "data", allow_process_models=True) as running:
        yield running


@pytest.fixture
def is_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """What the container's health check says of the consumer."""
    monkeypatch.setattr("sys.argv", ["healthcheck", f"file:{tmp_path / 'alive'}"])
    return lambda: check_health() == 0


@contextmanager
def consumer(api: RunningApi, folder: Path, credential: Credential) -> Iterator[threading.Thread]:
    """A consumer in a thread; it is stopped when the block ends."""
    stopping = threading.Event()
    # Of the machine a run sees no folder that nobody names.
    engine = ProcessEngine(work_dir=folder / "work", readable=[folder / "told"])
    options = ConsumerOptions(
        api_url=api.url,
        credential=credential,
        consumer="a-1",
        work_dir=folder / "work",
        limits=PROCESS_LIMITS,
        alive_file=folder / "alive",
    )
    thread = threading.Thread(target=run_consumer, args=(options, api.broker, engine, stopping))
    thread.start()
    try:
        yield thread
    finally:
        stopping.set()
        api.broker.wake()
        thread.join(60)
        engine.close()
    assert not thread.is_alive()


def refusals(caplog: pytest.LogCaptureFixture, variable: str) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    return [line for line in lines if f"refuses its {variable}: " in line and f"Correct {variable} or" in line]


def test_a_consumer_tells_which_host_it_works_on(api: RunningApi, tmp_path: Path) -> None:
    database = Database(api.database_url)

    def host() -> str | None:
        with database.read() as session:
            row = session.get(ConsumerRow, "a-1")
            return row.host if row else None

    with consumer(api, tmp_path, Credential("SERVICE_TOKEN", api.token)):
        wait_until(lambda: host() == socket.gethostname(), "the consumer to tell its host")
    database.close()


@pytest.mark.parametrize(
    "credential",
    [
        Credential("SERVICE_TOKEN", "another-token-of-the-tests"),
        Credential("CONSUMER_KEY", f"is_{'0' * 16}_{'0' * 64}"),
    ],
    ids=lambda credential: credential.variable,
)
def test_a_wrong_secret_is_told_by_its_variable_again_and_again_and_without_a_traceback(
    api: RunningApi,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    is_healthy: Callable[[], bool],
    credential: Credential,
) -> None:
    # As an earlier start of the same container left it.
    (tmp_path / "alive").touch()
    with consumer(api, tmp_path, credential) as thread:
        wait_until(lambda: len(refusals(caplog, credential.variable)) >= 2, "the consumer to be refused twice")
        assert thread.is_alive()
        assert not is_healthy()
    assert all(credential.secret not in line for line in caplog.messages)
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_run_outlives_its_consumers_key_and_is_delivered_under_the_next(
    api: RunningApi,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    is_healthy: Callable[[], bool],
) -> None:
    database = Database(api.database_url)
    keys = [create_key(database, owner="host-a", scopes=[Scope.CONSUME], lifetime=None) for _ in range(2)]
    may_end = tmp_path / "told" / "may-end"
    may_end.parent.mkdir()
    script = f"#!/bin/sh\nwhile [ ! -e {may_end} ]; do sleep 0.1; done\necho done > $OUTPUT_DIR/result\n"
    with api.client() as http:
        model = {"human_readable_id": "waits", "container_tag": "process:run.sh", "model_available": "true"}
        program = {"zip_file": make_zip({"run.sh": script.encode()})}
        assert http.post("/api/models/", params=model, files=program).status_code == 200
        archive = {"zip_file": make_zip({"a": b"a"})}
        uid = http.post("/api/tasks/?human_readable_id=waits", files=archive).json()

        def status() -> str:
            return str(http.get(f"/api/tasks/{uid}/status").json()["status"])

        with consumer(api, tmp_path, Credential("CONSUMER_KEY", keys[0])):
            wait_until(lambda: status() == "running", "the task to run")
            assert is_healthy()
            revoke_key(database, keys[0].split("_")[1])
            may_end.touch()
            wait_until(lambda: bool(refusals(caplog, "CONSUMER_KEY")), "the result to be refused")
            wait_until(lambda: not is_healthy(), "the consumer to be unhealthy")
            assert "is revoked" in refusals(caplog, "CONSUMER_KEY")[0]
            assert status() == "running"
        with consumer(api, tmp_path, Credential("CONSUMER_KEY", keys[1])):
            wait_until(lambda: status() == "finished", "the result under the other key")
            wait_until(is_healthy, "the consumer to be healthy")
        assert http.get(f"/api/tasks/{uid}/status").json()["attempt"] == 1
    database.close()
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_result_is_offered_again_while_the_server_answers_500_to_it(
    api: RunningApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(api.database_url)

    def execute(statement: str) -> None:
        with database.write() as session:
            session.execute(text(statement))

    # A fault that nobody foresaw, and that an operator repairs.
    execute(
        "CREATE TRIGGER fault BEFORE UPDATE ON tasks WHEN NEW.status = 'finished'"
        " BEGIN SELECT RAISE(ABORT, 'a fault of the server'); END"
    )
    script = {"run.sh": b"#!/bin/sh\necho done > $OUTPUT_DIR/result\n"}
    with api.client() as http, consumer(api, tmp_path, Credential("SERVICE_TOKEN", api.token)):
        model = {"human_readable_id": "ends", "container_tag": "process:run.sh", "model_available": "true"}
        assert http.post("/api/models/", params=model, files={"zip_file": make_zip(script)}).status_code == 200
        archive = {"zip_file": make_zip({"a": b"a"})}
        uid = http.post("/api/tasks/?human_readable_id=ends", files=archive).json()
        wait_until(lambda: caplog.text.count("at a call, which is repeated") > 1, "the result to be offered twice")
        execute("DROP TRIGGER fault")
        wait_until(lambda: http.get(f"/api/tasks/{uid}/status").json()["status"] == "finished", "the result")
        assert http.get(f"/api/tasks/{uid}/status").json()["attempt"] == 1
    database.close()


def test_a_consumer_does_not_name_what_it_never_got_and_takes_it_anew(api: RunningApi, tmp_path: Path) -> None:
    with api.client() as http:
        model = {"human_readable_id": "quick", "container_tag": "process:run.sh", "model_available": "true"}
        program = {"zip_file": make_zip({"run.sh": b"#!/bin/sh\necho done > $OUTPUT_DIR/result\n"})}
        assert http.post("/api/models/", params=model, files=program).status_code == 200
        archive = {"zip_file": make_zip({"a": b"a"})}
        uid = http.post("/api/tasks/?human_readable_id=quick", files=archive).json()
        # An earlier process of the consumer claimed it, and ended before the answer came.
        assert http.post("/internal/claims", json={"consumer": "a-1"}).json()["uid"] == uid

        def status() -> str:
            return str(http.get(f"/api/tasks/{uid}/status").json()["status"])

        with consumer(api, tmp_path, Credential("SERVICE_TOKEN", api.token)):
            wait_until(lambda: status() == "finished", "the task to be claimed anew")
        outcomes = [attempt["outcome"] for attempt in http.get(f"/api/tasks/{uid}/attempts").json()]
    assert outcomes == ["released", "finished"]
