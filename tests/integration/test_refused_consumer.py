"""A consumer that the private API refuses says so in one line, is not healthy, and keeps what it has."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.access import Scope
from contract.healthcheck import main as check_health
from job_consumer.container_spec import Limits
from job_consumer.process_engine import ProcessEngine
from job_consumer.service import run_consumer
from job_consumer.settings import Proof
from private_api.database import Database
from private_api.keys import create_key, revoke_key
from tests.integration.public_door import wait_for
from tests.running_api import RunningApi, run_private_api
from tests.zips import make_zip

MIB = 1024**2
LIMITS = Limits(
    memory_bytes=512 * MIB,
    cpus=None,
    pids=64,
    shared_memory_bytes=64 * MIB,
    temporary_bytes=64 * MIB,
    log_bytes=MIB,
)


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
def consumer(api: RunningApi, folder: Path, proof: Proof) -> Iterator[threading.Thread]:
    """A consumer in a thread; it is stopped when the block ends."""
    stopping = threading.Event()
    engine = ProcessEngine(work_dir=folder / "work")
    thread = threading.Thread(
        target=run_consumer,
        args=(api.broker, engine),
        kwargs={
            "api_url": api.url,
            "proof": proof,
            "consumer": "a-1",
            "gpu_uuid": None,
            "accepts_cpu_tasks": True,
            "work_dir": folder / "work",
            "limits": LIMITS,
            "stopping": stopping,
            "alive_file": folder / "alive",
        },
    )
    thread.start()
    try:
        yield thread
    finally:
        stopping.set()
        api.broker.wake()
        thread.join(30)
        engine.close()
    assert not thread.is_alive()


def refusals(caplog: pytest.LogCaptureFixture, variable: str) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    return [line for line in lines if f"refuses its {variable}: " in line and f"Correct {variable} or" in line]


@pytest.mark.parametrize(
    "proof",
    [Proof("SERVICE_TOKEN", "another-token-of-the-tests"), Proof("CONSUMER_KEY", f"is_{'0' * 16}_{'0' * 64}")],
    ids=lambda proof: proof.variable,
)
def test_a_wrong_secret_is_told_by_its_variable_again_and_again_and_without_a_traceback(
    api: RunningApi,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    is_healthy: Callable[[], bool],
    proof: Proof,
) -> None:
    # As an earlier start of the same container left it.
    (tmp_path / "alive").touch()
    with consumer(api, tmp_path, proof) as thread:
        wait_for(lambda: len(refusals(caplog, proof.variable)) >= 2, "the consumer to be refused twice")
        assert thread.is_alive()
        assert not is_healthy()
    assert all(proof.secret not in line for line in caplog.messages)
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_run_outlives_its_consumers_key_and_is_delivered_under_the_next(
    api: RunningApi,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    is_healthy: Callable[[], bool],
) -> None:
    database = Database(api.database_url)
    keys = [create_key(database, owner="host-a", scopes=[Scope.CONSUME], lifetime=None) for _ in range(2)]
    may_end = tmp_path / "may-end"
    script = f"#!/bin/sh\nwhile [ ! -e {may_end} ]; do sleep 0.1; done\necho done > $OUTPUT_DIR/result\n"
    with api.client() as http:
        model = {"human_readable_id": "waits", "container_tag": "process:run.sh", "model_available": "true"}
        program = {"zip_file": make_zip({"run.sh": script.encode()})}
        assert http.post("/api/models/", params=model, files=program).status_code == 200
        archive = {"zip_file": make_zip({"a": b"a"})}
        uid = http.post("/api/tasks/?human_readable_id=waits", files=archive).json()

        def status() -> str:
            return str(http.get(f"/api/tasks/{uid}/status").json()["status"])

        with consumer(api, tmp_path, Proof("CONSUMER_KEY", keys[0])):
            wait_for(lambda: status() == "running", "the task to run")
            assert is_healthy()
            revoke_key(database, keys[0].split("_")[1])
            may_end.touch()
            wait_for(lambda: bool(refusals(caplog, "CONSUMER_KEY")), "the result to be refused")
            wait_for(lambda: not is_healthy(), "the consumer to be unhealthy")
            assert "is revoked" in refusals(caplog, "CONSUMER_KEY")[0]
            assert status() == "running"
        with consumer(api, tmp_path, Proof("CONSUMER_KEY", keys[1])):
            wait_for(lambda: status() == "finished", "the result under the other key")
            wait_for(is_healthy, "the consumer to be healthy")
        assert http.get(f"/api/tasks/{uid}/status").json()["attempt"] == 1
    database.close()
    assert [record for record in caplog.records if record.exc_info] == []
