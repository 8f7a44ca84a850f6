"""One GPU, tasks and replicas: never two containers on it at once, unless a replica shares it."""

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from os import kill
from pathlib import Path

import pytest

from contract.deployments import ReplicaClaim, ReplicaReason, ReplicaStatus
from contract.schemas import ClaimRequest
from contract.statuses import Status
from job_consumer.engine import RunKey, RunKind
from job_consumer.job import Job
from job_consumer.replica import Replica
from private_api.database import Database
from private_api.deployment_tables import ReplicaRow
from tests.e2e.systems import Process, wait_for
from tests.integration.container_watch import watch_containers
from tests.integration.engine_bench import until
from tests.integration.replica_bench import GPU, ReplicaBench, replica_bench
from tests.running_api import run_private_api
from tests.services import require_docker


@pytest.fixture
def bench(postgres_url: str, tmp_path: Path) -> Iterator[ReplicaBench]:
    require_docker()
    with run_private_api(postgres_url, tmp_path / "data") as api, replica_bench(api, tmp_path / "work") as made:
        made.register(use_gpu=True)
        made.register("batch", use_gpu=True)
        made.register("cpu")
        yield made


def finish(bench: ReplicaBench, uid: str) -> None:
    until(lambda: bench.task(uid).status.is_terminal)
    assert bench.task(uid).status is Status.FINISHED


def test_a_gpu_task_waits_for_the_end_of_a_replica_of_a_higher_priority(bench: ReplicaBench) -> None:
    with watch_containers(bench.name) as watch, bench.consumer(gpu_uuid=GPU):
        bench.deploy(priority=10)
        replica = bench.replica()
        assert replica.gpu_uuid == GPU
        told = json.loads(bench.call(replica, "Environment"))
        assert (told["NVIDIA_VISIBLE_DEVICES"], told["NVIDIA_DRIVER_CAPABILITIES"]) == (GPU, "compute,utility")
        waiting = bench.submit("batch")
        # Tasks without a GPU run beside it; the second is claimed after the GPU task was passed over.
        for _ in range(2):
            finish(bench, bench.submit("cpu"))
        assert bench.task(waiting).status is Status.QUEUED
        until(lambda: watch.count("die", "task") == 2)
        assert watch.most_at_once == 2
        watch.most_at_once = 0
        bench.undeploy()
        finish(bench, waiting)
        until(lambda: watch.count("die", "task") == 3)
        assert watch.history[-3:] == [("die", "replica"), ("start", "task"), ("die", "task")]
        assert watch.most_at_once == 1


def test_a_replica_waits_for_the_end_of_a_gpu_task(bench: ReplicaBench) -> None:
    with watch_containers(bench.name) as watch, bench.consumer(gpu_uuid=GPU):
        running = bench.submit("batch", sleep_s=4)
        until(lambda: watch.count("start", "task") == 1)
        bench.deploy()
        bench.replica()
        finish(bench, running)
        assert watch.history == [("start", "task"), ("die", "task"), ("start", "replica")]


def test_a_waiting_gpu_task_evicts_an_idle_replica_which_comes_back(bench: ReplicaBench) -> None:
    with watch_containers(bench.name) as watch, bench.consumer(gpu_uuid=GPU):
        bench.deploy(priority=-1)
        first = bench.replica()
        uid = bench.submit("batch", sleep_s=1)
        finish(bench, uid)
        ended = bench.replica(ReplicaStatus.ENDED)
        assert (ended.uid, ended.reason) == (first.uid, ReplicaReason.EVICTED)
        assert bench.replica().uid != first.uid
        until(lambda: watch.count("start", "replica") == 2)
        assert watch.history == [
            ("start", "replica"),
            ("die", "replica"),
            ("start", "task"),
            ("die", "task"),
            ("start", "replica"),
        ]


def test_a_replica_that_shares_its_gpu_has_tasks_beside_it(bench: ReplicaBench) -> None:
    with watch_containers(bench.name) as watch, bench.consumer(gpu_uuid=GPU):
        bench.deploy(share_gpu=True)
        replica = bench.replica()
        finish(bench, bench.submit("batch"))
        until(lambda: watch.count("die", "task") == 1)
        assert watch.most_at_once == 2
        assert bench.replica().uid == replica.uid


def test_a_gpu_task_of_the_replicas_model_runs_inside_it(bench: ReplicaBench) -> None:
    with watch_containers(bench.name) as watch, bench.consumer(gpu_uuid=GPU):
        bench.deploy(serves_tasks=True, priority=10)
        bench.replica()
        finish(bench, bench.submit())
        assert watch.history == [("start", "replica")]


@pytest.mark.parametrize("kind", ["task", "replica"])
def test_a_container_starts_only_once_the_one_before_it_is_gone(bench: ReplicaBench, kind: str) -> None:
    before = RunKey("0" * 64, 1, RunKind.REPLICA)
    with watch_containers(bench.name) as watch, bench.host() as host:
        host.gpu.enter(before, shares=False, check=lambda: None)
        claim = {"consumer": host.consumer, "gpu_uuid": GPU}
        if kind == "task":
            bench.submit("batch")
            task = host.api.claim(ClaimRequest.model_validate(claim))
            assert task is not None
            thread = threading.Thread(target=Job(host, task).run)
        else:
            bench.deploy()
            bench.replica(ReplicaStatus.WANTED)
            replica = host.api.claim_replica(ReplicaClaim.model_validate(claim))
            assert replica is not None
            thread = threading.Thread(target=Replica(host, bench.network, replica).run)
        thread.start()
        # Its folders are ready: without the one before it, it would start now.
        until(lambda: any((bench.work_dir / "models").glob("*/behaviour.json")))
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            assert watch.history == []
            time.sleep(0.05)
        host.gpu.leave(before)
        until(lambda: watch.count("start", kind) == 1)
        host.stopping.set()
        thread.join(30)
        assert not thread.is_alive()


def test_a_frozen_consumer_ends_the_replica_it_lost_before_it_starts_a_task(
    bench: ReplicaBench, tmp_path: Path
) -> None:
    environment = bench.consumer_environment() | {"GPU_UUID": GPU, "ACCEPTS_CPU_TASKS": "false"}
    consumer = Process("consumer", [sys.executable, "-m", "job_consumer"], environment, tmp_path / "consumer.log")
    consumer.start()
    try:
        with watch_containers(bench.name) as watch:
            bench.deploy(priority=10)
            lost = bench.replica()
            kill(consumer.pid, signal.SIGSTOP)
            database = Database(bench.api.database_url)
            with database.write() as session:
                for row in session.query(ReplicaRow):
                    assert row.lease_until is not None
                    row.lease_until -= timedelta(hours=1)
            database.close()
            until(lambda: lost.uid in [view.uid for view in bench.view().replicas if view.reason is ReplicaReason.LOST])
            bench.undeploy()
            uid = bench.submit("batch")
            kill(consumer.pid, signal.SIGCONT)
            finish(bench, uid)
            wait_for(lambda: watch.count("die", "task") == 1, 30, consumer.output)
            assert watch.most_at_once == 1
    finally:
        kill(consumer.pid, signal.SIGCONT)
        consumer.end()
