"""What is left of runs is removed, once and for all, and what is another server's is never touched."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contract.claims import ClaimRequest
from contract.deployments import ReplicaClaim, ReplicaStatus
from contract.schemas import Release
from contract.statuses import Status
from job_consumer.engines import LABEL
from job_consumer.locks import hold_locks
from job_consumer.tasks.attempt import Attempt
from operations.sweeper import sweep
from tests.engine_proxy import EngineProxy, engine_proxy
from tests.integration.container_watch import watch_containers
from tests.integration.replica_harness import GPU, ReplicaHarness, hosted, replica_harness
from tests.running_api import run_private_api
from tests.services import require_docker
from tests.waiting import check_for, wait_until

REMOVAL = rb"DELETE "
ENDING = rb"DELETE |POST \S*/(stop|kill)\b"


@contextmanager
def server(folder: Path, name: str) -> Iterator[ReplicaHarness]:
    """A server of its own with a consumer of that name."""
    folder.mkdir()
    with (
        run_private_api(f"sqlite:///{folder}/inference.db", folder / "data") as api,
        replica_harness(api, folder / "work") as made,
    ):
        made.name = name
        made.register("cpu")
        yield made


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[ReplicaHarness]:
    require_docker()
    with server(tmp_path / "one", f"consumer-{secrets.token_hex(4)}") as made:
        yield made


@pytest.fixture
def proxy() -> Iterator[EngineProxy]:
    with engine_proxy() as made:
        yield made


def leave_to(first: ReplicaHarness, other: ReplicaHarness) -> None:
    """Let the first one alone clean up: the end of the other's block removes all containers of its consumer's name."""
    assert other.name == first.name
    other.name = "nobody"


def finish(harness: ReplicaHarness, uid: str) -> None:
    wait_until(lambda: harness.task(uid).status.is_terminal)
    assert harness.task(uid).status is Status.FINISHED


def run_and_leave(harness: ReplicaHarness, *, use_gpu: bool = False, **do: Any) -> tuple[str, int]:
    """Start a task's container as a consumer of the release before did, and leave it; its uid and fence."""
    uid = harness.submit("gpu" if use_gpu else "cpu", **do)
    with harness.context() as context:
        claim = ClaimRequest(consumer=harness.name, gpu_uuid=GPU if use_gpu else None)
        assignment = context.api.claim(claim)
        assert assignment is not None
        _leave(context, Attempt(context, assignment).run, lambda: running(harness, uid))
    return uid, assignment.fence


def host_and_leave(harness: ReplicaHarness) -> str:
    """The same with a replica; its uid."""
    harness.deploy("cpu")
    harness.replica(ReplicaStatus.WANTED, "cpu")
    with harness.context() as context:
        assignment = context.api.claim_replica(ReplicaClaim(consumer=harness.name))
        assert assignment is not None
        _leave(context, hosted(context, assignment).run, lambda: running(harness, assignment.uid, "replica"))
    return assignment.uid


def _leave(context: Any, run: Any, is_started: Any) -> None:
    thread = threading.Thread(target=run)
    thread.start()
    wait_until(is_started)
    context.stopping.set()
    thread.join(60)
    assert not thread.is_alive()


def running(harness: ReplicaHarness, uid: str, kind: str = "task") -> list[str]:
    """The ids of the running containers of a task or replica."""
    labels = [f"{LABEL}.consumer={harness.name}", f"{LABEL}.{kind}={uid}"]
    return [each["Id"] for each in harness.docker.containers(filters={"label": labels})]


def test_a_server_touches_nothing_of_another_on_the_same_engine(harness: ReplicaHarness, tmp_path: Path) -> None:
    with harness.consumer():
        harness.deploy("cpu")
        replica = harness.replica(model="cpu")
        uid = harness.submit("cpu", sleep_s=3600)
        wait_until(lambda: running(harness, uid))
        before = running(harness, uid), running(harness, replica.uid, "replica")
        with server(tmp_path / "two", harness.name) as other, other.consumer():
            finish(other, other.submit("cpu"))
            assert (running(harness, uid), running(harness, replica.uid, "replica")) == before
            leave_to(harness, other)
        harness.http.post(f"/api/tasks/{uid}/cancel").raise_for_status()
        wait_until(lambda: harness.task(uid).status is Status.CANCELLED)


def test_runs_of_the_release_before_are_adopted_by_their_own_server_alone(
    harness: ReplicaHarness, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uid, _ = run_and_leave(harness, sleep_s=3)
    lost, fence = run_and_leave(harness, sleep_s=3600)
    replica = host_and_leave(harness)
    release = Release(consumer=harness.name, detail="", blameless=True)
    with harness.api.consumer() as api:
        api.release(lost, fence, release)
    harness.http.post(f"/api/tasks/{lost}/cancel").raise_for_status()
    found = running(harness, replica, "replica")
    with server(tmp_path / "two", harness.name) as other, other.consumer():
        finish(other, other.submit("cpu"))
        assert running(harness, lost)
        assert running(harness, replica, "replica") == found
        leave_to(harness, other)
    assert "is not this server's; it is left alone" in caplog.text
    with harness.consumer():
        finish(harness, uid)
        assert harness.task(uid).attempt == 1
        wait_until(lambda: not running(harness, lost))
        assert harness.replica(model="cpu").uid == replica
        assert running(harness, replica, "replica") == found
        wait_until(lambda: not harness.containers("task"))


def test_what_could_not_be_removed_is_removed_once_the_engine_answers(
    harness: ReplicaHarness, proxy: EngineProxy
) -> None:
    with harness.consumer(engine_url=proxy.url):
        proxy.hold(REMOVAL)
        # The second shows that nobody waits for the removal of the first.
        for _ in range(2):
            finish(harness, harness.submit("cpu"))
        assert harness.containers("task")
        proxy.release()
        wait_until(lambda: not harness.containers("task"))
        wait_until(lambda: not list((harness.work_dir / "attempts" / harness.name).iterdir()))
        volumes = harness.docker.volumes(filters={"label": f"{LABEL}.consumer={harness.name}"})["Volumes"]
        assert not volumes


def test_a_leftover_that_cannot_be_removed_does_not_keep_a_consumer_from_work(
    harness: ReplicaHarness, proxy: EngineProxy
) -> None:
    lost, fence = run_and_leave(harness, sleep_s=3600)
    with harness.api.consumer() as api:
        api.release(lost, fence, Release(consumer=harness.name, detail="", blameless=True))
    harness.http.post(f"/api/tasks/{lost}/cancel").raise_for_status()
    proxy.hold(REMOVAL)
    with harness.consumer(engine_url=proxy.url):
        finish(harness, harness.submit("cpu"))
        assert running(harness, lost)
        proxy.release()
        wait_until(lambda: not harness.containers("task"))


def test_no_task_starts_on_a_gpu_beside_a_run_that_could_not_be_stopped(
    harness: ReplicaHarness, proxy: EngineProxy
) -> None:
    harness.register("gpu", use_gpu=True)
    with watch_containers(harness.name) as watch, harness.consumer(gpu_uuid=GPU, engine_url=proxy.url):
        stuck = harness.submit("gpu", sleep_s=3600)
        wait_until(lambda: running(harness, stuck))
        proxy.hold(ENDING)
        harness.http.post(f"/api/tasks/{stuck}/cancel").raise_for_status()
        wait_until(lambda: harness.task(stuck).status is Status.CANCELLED)
        waiting = harness.submit("gpu")
        wait_until(lambda: any(line.startswith("DELETE") for line in proxy.held))
        check_for(2, lambda: harness.task(waiting).status is Status.QUEUED, "it waits for the GPU")
        assert running(harness, stuck)
        proxy.release()
        finish(harness, waiting)
        assert harness.task(waiting).attempt == 1
        assert watch.most_at_once == 1


def test_the_sweeper_ends_what_a_consumer_left_unless_that_lives(harness: ReplicaHarness) -> None:
    uid, _ = run_and_leave(harness, sleep_s=3600)
    replica = host_and_leave(harness)
    with hold_locks(harness.work_dir, harness.name, None):
        sweep(harness.work_dir)
        assert running(harness, uid)
        assert running(harness, replica, "replica")
    sweep(harness.work_dir)
    assert not harness.containers("task")
    assert not harness.containers("replica")
    with harness.consumer():
        wait_until(lambda: running(harness, uid))
        assert harness.task(uid).attempt == 2
        assert harness.replica(model="cpu").uid != replica
        harness.http.post(f"/api/tasks/{uid}/cancel").raise_for_status()
        wait_until(lambda: not harness.containers("task"))
