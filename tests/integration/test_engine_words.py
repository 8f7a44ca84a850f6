"""What the Engine says of its host's network stays in the consumer's log: tasks and replicas tell sentences of ours."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.claims import ClaimRequest
from contract.schemas import ConsumerRegistration
from job_consumer.container_spec import Sandbox
from job_consumer.context import ConsumerContext
from job_consumer.engines import EngineError, EngineUnavailable, ImageNotFound
from job_consumer.replicas.ready import ReadyReplicas
from job_consumer.replicas.replica import Replica
from job_consumer.settings import Credential
from job_consumer.tasks.attempt import Attempt
from job_consumer.workspace import WorkDir
from tests.limits import PROCESS_LIMITS
from tests.running_api import RunningApi, claim_waiting_replica
from tests.unit.consumer_peer import MemoryEngine
from tests.zips import make_zip

ZIP = {"Content-Type": "application/zip"}
OURS, SAID = "no registry could be reached", "dial tcp 10.0.0.5:22: connect: connection refused"
FAULTS = [
    ("ensure_image", ImageNotFound(OURS, SAID)),
    ("start", ImageNotFound(OURS, SAID)),
    ("ensure_image", EngineUnavailable(OURS, SAID)),
    ("start", EngineUnavailable(OURS, SAID)),
]


@pytest.fixture
def context(api: RunningApi, tmp_path: Path) -> Iterator[ConsumerContext]:
    with api.consumer() as client:
        yield ConsumerContext(
            credential=Credential("SERVICE_TOKEN", api.token),
            sandbox=Sandbox("ada", PROCESS_LIMITS, gpu_uuid=None, network="replicas"),
            api=client,
            engine=MemoryEngine(),
            work=WorkDir(tmp_path / "work", "ada"),
            stopping=threading.Event(),
        )


def make_fault(context: ConsumerContext, call: str, fault: EngineError) -> MemoryEngine:
    """Have the next call of this method raise the fault. Returns the engine."""
    assert isinstance(context.engine, MemoryEngine)
    context.engine.faults[call] = [fault]
    return context.engine


@pytest.mark.parametrize(("call", "fault"), FAULTS)
def test_a_task_tells_what_is_ours_and_the_log_what_the_engine_said(
    api: RunningApi,
    context: ConsumerContext,
    caplog: pytest.LogCaptureFixture,
    *,
    call: str,
    fault: EngineError,
) -> None:
    with api.client() as http:
        http.post("/api/models/?human_readable_id=echo&container_tag=10.0.0.5:22/x:1").raise_for_status()
        uid = http.post("/api/tasks/?human_readable_id=echo", content=make_zip(), headers=ZIP).json()
        held = context.api.claim(ClaimRequest(consumer="ada"))
        assert held is not None
        make_fault(context, call, fault)
        caplog.set_level("INFO")
        Attempt(context, held).run()
        told = http.get(f"/api/tasks/{uid}/status").text + http.get(f"/api/tasks/{uid}/attempts").text
    assert OURS in told
    assert SAID not in told
    assert SAID in caplog.text


@pytest.mark.parametrize(("call", "fault"), FAULTS)
def test_a_replica_tells_what_is_ours_and_the_log_what_the_engine_said(
    api: RunningApi,
    context: ConsumerContext,
    caplog: pytest.LogCaptureFixture,
    *,
    call: str,
    fault: EngineError,
) -> None:
    with api.client() as http:
        http.post("/api/models/?human_readable_id=echo&container_tag=10.0.0.5:22/x:1").raise_for_status()
        context.api.register(ConsumerRegistration(consumer="ada"))
        http.post("/api/models/echo/deployment", json={"port": 8001, "replicas_min": 1}).raise_for_status()
        replica = claim_waiting_replica(context.api, "ada")
        engine = make_fault(context, call, fault)
        caplog.set_level("INFO")
        Replica(context, engine, ReadyReplicas(), replica).run()
        told = http.get("/api/models/echo/deployment").text
    assert OURS in told
    assert SAID not in told
    assert SAID in caplog.text
