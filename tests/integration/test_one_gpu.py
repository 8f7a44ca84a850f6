"""One GPU, tasks and replicas: never two containers on it at once, unless a replica shares it."""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from os import kill
from pathlib import Path

import pytest

from contract.claims import ClaimRequest
from contract.deployments import ReplicaClaim, ReplicaReason, ReplicaStatus
from contract.statuses import Status
from job_consumer.engines import RunKey, RunKind
from job_consumer.tasks.attempt import Attempt
from private_api.database import Database
from private_api.deployment_tables import ReplicaRow
from tests.e2e.systems import Process
from tests.integration.container_watch import watch_containers
from tests.integration.replica_harness import GPU, ReplicaHarness, hosted, replica_harness
from tests.running_api import run_private_api
from tests.services import require_docker
from tests.waiting import check_for, wait_until


@pytest.fixture
def harness(postgres_url: str, tmp_path: Path) -> Iterator[ReplicaHarness]:
    require_docker()
    with run_private_api(postgres_url, tmp_path / "data") as api, replica_harness(api, tmp_path / "work") as made:
        made.register(use_gpu=True)
        made.register("batch", use_gpu=True)
        made.register("cpu")
        yield made


def finish(harness: ReplicaHarness, uid: str) -> None:
    wait_until(lambda: harness.task(uid).status.is_terminal)
    assert harness.task(uid).status is Status.FINISHED


def test_a_gpu_task_waits_for_the_end_of_a_replica_of_a_higher_priority(harness: ReplicaHarness) -> None:
    with watch_containers(harness.name) as watch, harness.consumer(gpu_uuid=GPU):
        harness.deploy(priority=10)
        replica = harness.replica()
        assert replica.gpu_uuid == GPU
        told = json.loads(harness.call(replica, "Environment"))
        assert (told["NVIDIA_VISIBLE_DEVICES"], told["NVIDIA_DRIVER_CAPABILITIES"]) == (GPU, "compute,utility")
        waiting = harness.submit("batch")
        # Tasks without a GPU run beside it; the second is claimed after the GPU task was passed over.
        for _ in range(2):
            finish(harness, harness.submit("cpu"))
        assert harness.task(waiting).status is Status.QUEUED
        wait_until(lambda: watch.count("die", "task") == 2)
        assert watch.most_at_once == 2
        watch.most_at_once = 0
        harness.undeploy()
        finish(harness, waiting)
        wait_until(lambda: watch.count("die", "task") == 3)
        assert watch.history[-3:] == [("die", "replica"), ("start", "task"), ("die", "task")]
        assert watch.most_at_once == 1


def test_a_replica_waits_for_the_end_of_a_gpu_task(harness: ReplicaHarness) -> None:
    with watch_containers(harness.name) as watch, harness.consumer(gpu_uuid=GPU):
        running = harness.submit("batch", sleep_s=4)
        wait_until(lambda: watch.count("start", "task") == 1)
        harness.deploy()
        harness.replica()
        finish(harness, running)
        assert watch.history == [("start", "task"), ("die", "task"), ("start", "replica")]


def test_a_waiting_gpu_task_evicts_an_idle_replica_which_comes_back(harness: ReplicaHarness) -> None:
    with watch_containers(harness.name) as watch, harness.consumer(gpu_uuid=GPU):
        harness.deploy(priority=-1)
        first = harness.replica()
        uid = harness.submit("batch", sleep_s=1)
        finish(harness, uid)
        ended = harness.replica(ReplicaStatus.ENDED)
        assert (ended.uid, ended.reason) == (first.uid, ReplicaReason.EVICTED)
        assert harness.replica().uid != first.uid
        wait_until(lambda: watch.count("start", "replica") == 2)
        assert watch.history == [
            ("start", "replica"),
            ("die", "replica"),
            ("start", "task"),
            ("die", "task"),
            ("start", "replica"),
        ]


def test_a_replica_that_shares_its_gpu_has_tasks_beside_it(harness: ReplicaHarness) -> None:
    with watch_containers(harness.name) as watch, harness.consumer(gpu_uuid=GPU):
        harness.deploy(share_gpu=True)
        replica = harness.replica()
        finish(harness, harness.submit("batch"))
        wait_until(lambda: watch.count("die", "task") == 1)
        assert watch.most_at_once == 2
        assert harness.replica().uid == replica.uid


def test_a_gpu_task_of_the_replicas_model_runs_inside_it(harness: ReplicaHarness) -> None:
    with watch_containers(harness.name) as watch, harness.consumer(gpu_uuid=GPU):
        harness.deploy(serves_tasks=True, priority=10)
        harness.replica()
        finish(harness, harness.submit())
        assert watch.history == [("start", "replica")]


@pytest.mark.parametrize("kind", ["task", "replica"])
def test_a_container_starts_only_once_the_one_before_it_is_gone(harness: ReplicaHarness, kind: str) -> None:
    before = RunKey("0" * 64, 1, RunKind.REPLICA)
    with watch_containers(harness.name) as watch, harness.context() as context:
        context.gpu.enter(before, shares=False, check=lambda: None)
        claim = {"consumer": context.consumer, "gpu_uuid": GPU}
        if kind == "task":
            harness.submit("batch")
            task = context.api.claim(ClaimRequest.model_validate(claim))
            assert task is not None
            thread = threading.Thread(target=Attempt(context, task).run)
        else:
            harness.deploy()
            harness.replica(ReplicaStatus.WANTED)
            replica = context.api.claim_replica(ReplicaClaim.model_validate(claim))
            assert replica is not None
            thread = threading.Thread(target=hosted(context, replica).run)
        thread.start()
        # Its folders are ready: without the one before it, it would start now.
        wait_until(lambda: any((harness.work_dir / "models").glob("*/behaviour.json")))
        check_for(2, lambda: watch.history == [], "nothing starts")
        context.gpu.leave(before)
        wait_until(lambda: watch.count("start", kind) == 1)
        context.stopping.set()
        thread.join(60)
        assert not thread.is_alive()


def test_a_frozen_consumer_ends_the_replica_it_lost_before_it_starts_a_task(
    harness: ReplicaHarness, tmp_path: Path
) -> None:
    environment = harness.consumer_environment() | {"GPU_UUID": GPU, "ACCEPTS_CPU_TASKS": "false"}
    consumer = Process("consumer", [sys.executable, "-m", "job_consumer"], environment, tmp_path / "consumer.log")
    consumer.start()
    try:
        with watch_containers(harness.name) as watch:
            harness.deploy(priority=10)
            lost = harness.replica()
            kill(consumer.pid, signal.SIGSTOP)
            database = Database(harness.api.database_url)
            with database.write() as session:
                for row in session.query(ReplicaRow):
                    assert row.lease_until is not None
                    row.lease_until -= timedelta(hours=1)
            database.close()
            wait_until(
                lambda: lost.uid in [view.uid for view in harness.view().replicas if view.reason is ReplicaReason.LOST]
            )
            harness.undeploy()
            uid = harness.submit("batch")
            kill(consumer.pid, signal.SIGCONT)
            finish(harness, uid)
            wait_until(lambda: watch.count("die", "task") == 1, consumer.output)
            assert watch.most_at_once == 1
    finally:
        kill(consumer.pid, signal.SIGCONT)
        consumer.end()
