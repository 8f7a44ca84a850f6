"""Tasks that run inside a replica of their model, on a real Engine."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.deployments import ReplicaStatus
from contract.schemas import TaskView
from contract.statuses import Reason, Status
from tests.integration.replica_harness import ReplicaHarness, replica_harness
from tests.running_api import run_private_api
from tests.services import require_docker
from tests.waiting import wait_until


@pytest.fixture
def harness(postgres_url: str, tmp_path: Path) -> Iterator[ReplicaHarness]:
    require_docker()
    with run_private_api(postgres_url, tmp_path / "data") as api, replica_harness(api, tmp_path / "work") as made:
        made.register()
        yield made


def end_of(harness: ReplicaHarness, uid: str) -> TaskView:
    wait_until(lambda: harness.task(uid).status.is_terminal)
    return harness.task(uid)


def output_of(harness: ReplicaHarness, uid: str) -> dict[str, bytes]:
    answer = harness.http.get(f"/api/tasks/{uid}")
    answer.raise_for_status()
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def where(harness: ReplicaHarness, uid: str) -> Any:
    return json.loads(output_of(harness, uid)["where.json"])


def log_of(harness: ReplicaHarness) -> str:
    (container,) = harness.containers()
    log: bytes = harness.docker.logs(container["Id"])
    return log.decode()


def test_tasks_run_one_after_the_other_in_the_replica(harness: ReplicaHarness) -> None:
    with harness.consumer():
        harness.deploy(serves_tasks=True)
        replica = harness.replica()
        uids = [harness.submit() for _ in range(3)]
        for uid in uids:
            assert end_of(harness, uid).status is Status.FINISHED
            assert where(harness, uid) == {"uid": uid, "replica": replica.uid}
            assert output_of(harness, uid)["scan.txt"] == b"42\n"
        (folder,) = (harness.work_dir / "replicas" / harness.name).iterdir()
        wait_until(lambda: [*folder.glob("*/*")] == [])
        assert list((harness.work_dir / "attempts" / harness.name).iterdir()) == []
        assert [uid in log_of(harness) for uid in uids] == [True] * 3


@pytest.mark.parametrize("serves_tasks", [True, False])
def test_a_task_says_how_far_it_is_in_a_replica_as_in_its_own_container(
    harness: ReplicaHarness, serves_tasks: bool
) -> None:
    with harness.consumer():
        harness.deploy(serves_tasks=serves_tasks)
        harness.replica()
        uid = harness.submit(sleep_s=600, progress="0.42 fold 2")
        wait_until(lambda: harness.task(uid).progress == 0.42, lambda: f"its progress: {harness.task(uid)}")
        assert harness.task(uid).progress_text == "fold 2"
        harness.http.post(f"/api/tasks/{uid}/cancel").raise_for_status()
        assert end_of(harness, uid).progress is None


def test_a_replica_that_serves_no_tasks_gets_none(harness: ReplicaHarness) -> None:
    with harness.consumer():
        harness.deploy()
        harness.replica()
        uid = harness.submit()
        assert end_of(harness, uid).status is Status.FINISHED
        assert where(harness, uid)["replica"] is None


def test_an_exit_code_and_its_detail_are_the_tasks(harness: ReplicaHarness) -> None:
    with harness.consumer():
        harness.deploy(serves_tasks=True)
        harness.replica()
        ended = end_of(harness, harness.submit(exit_code=3, detail="the scan is blurred"))
        assert (ended.status, ended.reason, ended.exit_code) == (Status.FAILED, Reason.EXIT_CODE, 3)
        assert ended.detail == "the scan is blurred"
        ended = end_of(harness, harness.submit(**{"raise": "no such organ"}))
        assert (ended.status, ended.reason, ended.exit_code) == (Status.FAILED, Reason.EXIT_CODE, 1)
        assert ended.detail is not None
        assert ended.detail.startswith("the replica answered inferenceserver.Tasks/Run with UNKNOWN: ")
        assert "no such organ" in ended.detail


def test_a_tasks_time_limit_cancels_its_call(harness: ReplicaHarness) -> None:
    harness.register(time_limit_s=5)
    with harness.consumer():
        harness.deploy(serves_tasks=True)
        harness.replica()
        uid = harness.submit(sleep_s=60)
        ended = end_of(harness, uid)
        assert (ended.status, ended.reason) == (Status.FAILED, Reason.TIME_LIMIT)
        wait_until(lambda: f"cancelled {uid}" in log_of(harness))
        assert harness.replica().status is ReplicaStatus.READY


def test_cancelling_a_task_cancels_its_call(harness: ReplicaHarness) -> None:
    with harness.consumer():
        harness.deploy(serves_tasks=True)
        harness.replica()
        uid = harness.submit(sleep_s=60)
        wait_until(lambda: f"task {uid}" in log_of(harness))
        harness.http.delete(f"/api/tasks/{uid}").raise_for_status()
        wait_until(lambda: f"cancelled {uid}" in log_of(harness))
        assert harness.replica().status is ReplicaStatus.READY


def test_a_task_whose_replica_is_killed_runs_again_and_finishes(harness: ReplicaHarness) -> None:
    with harness.consumer():
        harness.deploy(serves_tasks=True)
        first = harness.replica()
        uid = harness.submit(sleep_s=3)
        wait_until(lambda: f"task {uid}" in log_of(harness))
        (container,) = harness.containers()
        harness.docker.kill(container["Id"])
        ended = end_of(harness, uid)
        assert (ended.status, ended.attempt) == (Status.FINISHED, 2)
        assert where(harness, uid)["replica"] != first.uid


def test_a_restarted_consumer_gives_a_warm_task_back_blamelessly(harness: ReplicaHarness) -> None:
    with harness.consumer():
        harness.deploy(serves_tasks=True)
        replica = harness.replica()
        uid = harness.submit(sleep_s=15)
        wait_until(lambda: f"task {uid}" in log_of(harness))
    assert harness.task(uid).status is Status.QUEUED
    with harness.consumer():
        assert end_of(harness, uid).status is Status.FINISHED
        assert where(harness, uid)["replica"] == replica.uid


def test_a_replica_that_is_to_end_lets_its_task_finish(harness: ReplicaHarness) -> None:
    with harness.consumer():
        harness.deploy(serves_tasks=True, drain_timeout_s=0)
        replica = harness.replica()
        # Longer than what the container, once it is told to end, still gives its calls.
        uid = harness.submit(sleep_s=12)
        wait_until(lambda: f"task {uid}" in log_of(harness))
        harness.undeploy()
        assert end_of(harness, uid).status is Status.FINISHED
        assert where(harness, uid)["replica"] == replica.uid
        wait_until(lambda: not harness.containers())
