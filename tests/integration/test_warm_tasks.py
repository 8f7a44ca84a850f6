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
from tests.integration.engine_bench import until
from tests.integration.replica_bench import ReplicaBench, replica_bench
from tests.running_api import run_private_api
from tests.services import require_docker


@pytest.fixture
def bench(postgres_url: str, tmp_path: Path) -> Iterator[ReplicaBench]:
    require_docker()
    with run_private_api(postgres_url, tmp_path / "data") as api, replica_bench(api, tmp_path / "work") as made:
        made.register()
        yield made


def end_of(bench: ReplicaBench, uid: str) -> TaskView:
    until(lambda: bench.task(uid).status.is_terminal)
    return bench.task(uid)


def output_of(bench: ReplicaBench, uid: str) -> dict[str, bytes]:
    answer = bench.http.get(f"/api/tasks/{uid}")
    answer.raise_for_status()
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def where(bench: ReplicaBench, uid: str) -> Any:
    return json.loads(output_of(bench, uid)["where.json"])


def log_of(bench: ReplicaBench) -> str:
    (container,) = bench.containers()
    log: bytes = bench.docker.logs(container["Id"])
    return log.decode()


def test_tasks_run_one_after_the_other_in_the_replica(bench: ReplicaBench) -> None:
    with bench.consumer():
        bench.deploy(serves_tasks=True)
        replica = bench.replica()
        uids = [bench.submit() for _ in range(3)]
        for uid in uids:
            assert end_of(bench, uid).status is Status.FINISHED
            assert where(bench, uid) == {"uid": uid, "replica": replica.uid}
            assert output_of(bench, uid)["scan.txt"] == b"42\n"
        (folder,) = (bench.work_dir / "replicas" / bench.name).iterdir()
        until(lambda: [*folder.glob("*/*")] == [])
        assert list((bench.work_dir / "attempts" / bench.name).iterdir()) == []
        assert [uid in log_of(bench) for uid in uids] == [True] * 3


def test_a_replica_that_serves_no_tasks_gets_none(bench: ReplicaBench) -> None:
    with bench.consumer():
        bench.deploy()
        bench.replica()
        uid = bench.submit()
        assert end_of(bench, uid).status is Status.FINISHED
        assert where(bench, uid)["replica"] is None


def test_an_exit_code_and_its_detail_are_the_tasks(bench: ReplicaBench) -> None:
    with bench.consumer():
        bench.deploy(serves_tasks=True)
        bench.replica()
        ended = end_of(bench, bench.submit(exit_code=3, detail="the scan is blurred"))
        assert (ended.status, ended.reason, ended.exit_code) == (Status.FAILED, Reason.EXIT_CODE, 3)
        assert ended.detail == "the scan is blurred"
        ended = end_of(bench, bench.submit(**{"raise": "no such organ"}))
        assert (ended.status, ended.reason, ended.exit_code) == (Status.FAILED, Reason.EXIT_CODE, 1)
        assert ended.detail is not None
        assert ended.detail.startswith("the replica answered inferenceserver.Tasks/Run with UNKNOWN: ")
        assert "no such organ" in ended.detail


def test_a_tasks_time_limit_cancels_its_call(bench: ReplicaBench) -> None:
    bench.register(time_limit_s=1)
    with bench.consumer():
        bench.deploy(serves_tasks=True)
        bench.replica()
        uid = bench.submit(sleep_s=60)
        ended = end_of(bench, uid)
        assert (ended.status, ended.reason) == (Status.FAILED, Reason.TIME_LIMIT)
        until(lambda: f"cancelled {uid}" in log_of(bench))
        assert bench.replica().status is ReplicaStatus.READY


def test_cancelling_a_task_cancels_its_call(bench: ReplicaBench) -> None:
    with bench.consumer():
        bench.deploy(serves_tasks=True)
        bench.replica()
        uid = bench.submit(sleep_s=60)
        until(lambda: f"task {uid}" in log_of(bench))
        bench.http.delete(f"/api/tasks/{uid}").raise_for_status()
        until(lambda: f"cancelled {uid}" in log_of(bench))
        assert bench.replica().status is ReplicaStatus.READY


def test_a_task_whose_replica_is_killed_runs_again_and_finishes(bench: ReplicaBench) -> None:
    with bench.consumer():
        bench.deploy(serves_tasks=True)
        first = bench.replica()
        uid = bench.submit(sleep_s=3)
        until(lambda: f"task {uid}" in log_of(bench))
        (container,) = bench.containers()
        bench.docker.kill(container["Id"])
        ended = end_of(bench, uid)
        assert (ended.status, ended.attempt) == (Status.FINISHED, 2)
        assert where(bench, uid)["replica"] != first.uid


def test_a_restarted_consumer_gives_a_warm_task_back_blamelessly(bench: ReplicaBench) -> None:
    with bench.consumer():
        bench.deploy(serves_tasks=True)
        replica = bench.replica()
        uid = bench.submit(sleep_s=5)
        until(lambda: f"task {uid}" in log_of(bench))
    assert bench.task(uid).status is Status.QUEUED
    with bench.consumer():
        assert end_of(bench, uid).status is Status.FINISHED
        assert where(bench, uid)["replica"] == replica.uid


def test_a_replica_that_is_to_end_lets_its_task_finish(bench: ReplicaBench) -> None:
    with bench.consumer():
        bench.deploy(serves_tasks=True, drain_timeout_s=0)
        replica = bench.replica()
        # Longer than what the container, once it is told to end, still gives its calls.
        uid = bench.submit(sleep_s=12)
        until(lambda: f"task {uid}" in log_of(bench))
        bench.undeploy()
        assert end_of(bench, uid).status is Status.FINISHED
        assert where(bench, uid)["replica"] == replica.uid
        until(lambda: not bench.containers())
