"""A cancel reaches its holder at once, without a heartbeat; nobody waits for it any more once the attempt is over."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.claims import ClaimRequest
from contract.errors import StaleFence
from contract.schemas import Assignment, Release
from contract.statuses import Phase
from job_consumer.container_spec import Limits, Sandbox
from job_consumer.context import ConsumerContext
from job_consumer.heartbeat import TaskHeartbeat
from job_consumer.settings import Credential
from job_consumer.workspace import WorkDir
from tests.running_api import RunningApi
from tests.unit.consumer_peer import MemoryEngine
from tests.waiting import wait_until
from tests.zips import make_zip

ZIP = {"Content-Type": "application/zip"}
HOURS_S = 6 * 3600.0


@pytest.fixture
def context(api: RunningApi, tmp_path: Path) -> Iterator[ConsumerContext]:
    with api.consumer() as client:
        yield ConsumerContext(
            credential=Credential("SERVICE_TOKEN", api.token),
            sandbox=Sandbox("ada", Limits(1000, None, 3, 400, 5, 6), gpu_uuid=None, network=None),
            api=client,
            engine=MemoryEngine(),
            work=WorkDir(tmp_path / "work", "ada"),
            stopping=threading.Event(),
        )


@pytest.fixture
def held(api: RunningApi, context: ConsumerContext) -> Assignment:
    """A task whose first heartbeat would come in an hour."""
    with api.client() as http:
        http.post("/api/models/?human_readable_id=echo&container_tag=echo:1").raise_for_status()
        http.post("/api/tasks/?human_readable_id=echo", content=make_zip(), headers=ZIP).raise_for_status()
    held = context.api.claim(ClaimRequest(consumer="ada"))
    assert held is not None
    return held.model_copy(update={"lease_s": HOURS_S})


def is_watched() -> bool:
    return any(thread.name == "cancel-watch" for thread in threading.enumerate())


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_cancel_is_heard_without_a_heartbeat(
    api: RunningApi, context: ConsumerContext, held: Assignment, method: str
) -> None:
    with TaskHeartbeat(context, held, Phase.RUNNING) as heartbeat, api.client() as http:
        assert not heartbeat.is_cancelled
        http.request(method, f"/api/tasks/{held.uid}{'/cancel' if method == 'POST' else ''}").raise_for_status()
        wait_until(lambda: heartbeat.is_cancelled, "the cancel to be heard")
    wait_until(lambda: not is_watched(), "the thread to end")


def test_nobody_waits_for_a_cancel_once_the_attempt_is_over(context: ConsumerContext, held: Assignment) -> None:
    with TaskHeartbeat(context, held, Phase.RUNNING) as heartbeat:
        wait_until(is_watched, "the thread to wait")
        context.api.release(held.uid, held.fence, Release(consumer="ada", detail="as planned", blameless=True))
    wait_until(lambda: not is_watched(), "the thread to end")
    assert not heartbeat.is_cancelled
    with pytest.raises(StaleFence):
        context.api.wait_for_cancel(held.uid, held.fence, 60)


def test_a_wait_that_hears_of_no_cancel_ends_with_no(context: ConsumerContext, held: Assignment) -> None:
    assert context.api.wait_for_cancel(held.uid, held.fence, 0.1) is False
