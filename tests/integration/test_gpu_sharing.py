"""One GPU, one container: tasks and replicas keep out of each other's way, by priority. On PostgreSQL and SQLite."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import pytest

from contract.access import ANONYMOUS
from contract.deployments import ReplicaReason
from contract.errors import ModelExists, StaleFence
from contract.statuses import Phase
from private_api.placement import evict
from private_api.placement.outlook import show_task
from private_api.tasks.attempts import show_assignment
from tests.integration.deployment_harness import DeploymentHarness
from tests.integration.task_harness import GPU, SIZES

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
GPU2 = "GPU-00000000-0000-0000-0000-000000000002"


def want(plane: DeploymentHarness, name: str = "warm", **serving: object) -> None:
    plane.register(name, use_gpu=True)
    plane.deploy(name, replicas_min=1, **serving)
    plane.scale()


def queue(plane: DeploymentHarness, priority: int = 0, model: str = "batch", waited: float = 0) -> str:
    with suppress(ModelExists):
        plane.register(model, use_gpu=True)
    uid = plane.tasks.submit(model, priority=priority)
    plane.tasks.shift(uid, not_before=-waited * SECOND)
    return uid


# Two claims.


def test_a_replica_keeps_tasks_off_its_gpu(plane: DeploymentHarness) -> None:
    plane.start("warm", use_gpu=True)
    queue(plane)
    assert plane.tasks.try_claim(gpu=GPU) is None
    assert plane.tasks.try_claim("bea", gpu=GPU2)


def test_a_replica_that_starts_or_leaves_keeps_them_off_too(plane: DeploymentHarness) -> None:
    want(plane)
    held = plane.claim(gpu=GPU)
    queue(plane)
    assert plane.tasks.try_claim(gpu=GPU) is None
    plane.beat(held)
    plane.deploy("warm", readiness="tcp", idle_timeout_s=1)
    plane.shift_deployment(wanted_at=timedelta(hours=-1))
    plane.scale()
    assert plane.row(held.uid).status == "draining"
    assert plane.tasks.try_claim(gpu=GPU) is None
    plane.end(held)
    assert plane.tasks.try_claim(gpu=GPU)


def test_cpu_tasks_run_beside_a_replica(plane: DeploymentHarness) -> None:
    plane.start("warm", use_gpu=True)
    plane.register("light")
    plane.tasks.submit("light")
    assert plane.tasks.claim(gpu=GPU).replica_uid is None


def test_a_task_keeps_replicas_off_its_gpu(plane: DeploymentHarness) -> None:
    task = plane.tasks.claim(gpu=GPU, uid=queue(plane))
    want(plane)
    assert plane.try_claim(gpu=GPU) is None
    plane.tasks.beat(task)
    assert plane.try_claim(gpu=GPU) is None
    plane.tasks.commit(task)
    assert plane.try_claim(gpu=GPU)


def test_a_task_whose_lease_expired_keeps_the_gpu_it_may_come_back_to(plane: DeploymentHarness) -> None:
    task = plane.tasks.claim(gpu=GPU, uid=queue(plane, priority=-50))
    plane.tasks.beat(task)
    plane.tasks.expire(task.uid)
    want(plane, priority=0)
    assert plane.try_claim(gpu=GPU) is None
    plane.tasks.beat(task)
    assert plane.try_claim(gpu=GPU) is None
    plane.tasks.expire(task.uid)
    # It is not kept waiting by a replica that waits for it.
    again = plane.tasks.claim(gpu=GPU)
    assert again.uid == task.uid
    with pytest.raises(StaleFence):
        plane.tasks.beat(task)


def test_a_second_replica_gets_a_second_gpu(plane: DeploymentHarness) -> None:
    plane.start("warm", use_gpu=True)
    want(plane, "other")
    assert plane.try_claim(gpu=GPU) is None
    assert plane.try_claim("bea", gpu=GPU2)


def test_replicas_that_share_a_gpu_are_together_on_it_and_with_tasks(plane: DeploymentHarness) -> None:
    plane.start("warm", use_gpu=True, share_gpu=True)
    want(plane, "selfish")
    assert plane.try_claim(gpu=GPU) is None
    want(plane, "shared", share_gpu=True)
    assert plane.claim(gpu=GPU).human_readable_id == "shared"
    assert plane.tasks.claim(gpu=GPU, uid=queue(plane)).replica_uid is None


def test_a_claim_of_each_kind_at_once_never_gives_both_the_gpu(plane: DeploymentHarness) -> None:
    for number in range(5):
        want(plane, f"warm{number}", priority=0)
        queue(plane)
        consumer, gpu = f"c{number}", f"GPU-{number}"
        plane.try_claim(consumer, gpu=gpu, slots=0)
        with ThreadPoolExecutor(2) as pool:
            replica = pool.submit(plane.try_claim, consumer, gpu=gpu)
            task = pool.submit(plane.tasks.try_claim, consumer, gpu=gpu)
        assert not (replica.result() and task.result())


# Who goes first.


def test_tasks_of_a_higher_priority_go_first(plane: DeploymentHarness) -> None:
    low, high, normal = (queue(plane, priority) for priority in (-5, 5, 0))
    assert [plane.tasks.claim(gpu=GPU).uid for _ in range(3)] == [high, normal, low]


def test_a_bell_decides_among_tasks_of_the_highest_priority_alone(plane: DeploymentHarness) -> None:
    low, first, second = queue(plane, 0), queue(plane, 5), queue(plane, 5)
    assert plane.tasks.claim(gpu=GPU, uid=low).uid == first
    queue(plane, 5)
    assert plane.tasks.claim(gpu=GPU, uid=second).uid == second


def test_the_position_counts_those_that_go_first(plane: DeploymentHarness) -> None:
    low, normal, high = (queue(plane, priority) for priority in (-5, 0, 5))
    views = [show_task(plane.tasks.database, plane.tasks.logs, uid, ANONYMOUS) for uid in (high, normal, low)]
    assert [(view.position, view.priority) for view in views] == [(0, 5), (1, 0), (2, -5)]


@pytest.mark.parametrize(("replica", "task", "replica_wins"), [(-1, 0, False), (0, 0, True), (5, 4, True)])
def test_a_free_gpu_goes_to_the_higher_priority_and_among_equals_to_the_replica(
    plane: DeploymentHarness, replica: int, task: int, replica_wins: bool
) -> None:
    want(plane, priority=replica)
    queue(plane, task)
    assert (plane.tasks.try_claim("x", gpu=GPU2) is None) == replica_wins
    queue(plane, task)
    assert (plane.try_claim(gpu=GPU) is not None) == replica_wins


def test_a_replica_keeps_no_task_waiting_where_it_cannot_be_hosted(plane: DeploymentHarness) -> None:
    want(plane, priority=9)
    queue(plane)
    request = {"gpu": GPU}
    assert plane.tasks.try_claim(**request) is None
    assert plane.tasks.try_claim("bare", gpu=GPU2, slots=0)


def test_a_task_that_is_cancelled_or_not_due_keeps_no_replica_waiting(plane: DeploymentHarness) -> None:
    want(plane)
    plane.tasks.shift(queue(plane), not_before=timedelta(hours=1))
    assert plane.try_claim(gpu=GPU)


# Through a replica.


def test_a_task_of_the_model_runs_through_an_idle_replica_that_serves_tasks(plane: DeploymentHarness) -> None:
    uid = plane.start("warm", use_gpu=True, serves_tasks=True)
    queue(plane)
    own = queue(plane, model="warm")
    task = plane.tasks.claim(gpu=GPU)
    assert (task.uid, task.replica_uid) == (own, uid)
    assert show_assignment(plane.tasks.database, task.uid, task.fence, SIZES).replica_uid == uid


@pytest.mark.parametrize("obstacle", ["it has calls open", "it is not ready", "it is of another version"])
def test_a_task_does_not_run_through_a_replica_that_cannot_take_it(plane: DeploymentHarness, obstacle: str) -> None:
    if obstacle == "it is not ready":
        want(plane, serves_tasks=True)
        plane.claim(gpu=GPU)
    else:
        uid = plane.start("warm", use_gpu=True, serves_tasks=True)
        if obstacle == "it has calls open":
            plane.report("warm", in_flight=1, replicas={uid: 1})
        else:
            plane.register("warm", use_gpu=True, replace=True)
    queue(plane, model="warm")
    assert plane.tasks.try_claim(gpu=GPU) is None


def test_a_cpu_task_runs_through_a_replica_of_its_own_consumer_alone(plane: DeploymentHarness) -> None:
    uid = plane.start("warm", serves_tasks=True)
    plane.report("warm", in_flight=1, replicas={uid: 1})
    plane.tasks.submit("warm")
    plane.tasks.submit("warm")
    assert plane.tasks.claim("bea").replica_uid is None
    assert plane.tasks.claim("ada").replica_uid == uid


def test_a_replica_that_runs_a_task_is_not_let_go_before_its_end(plane: DeploymentHarness) -> None:
    uid = plane.start("warm", use_gpu=True, serves_tasks=True)
    task = plane.tasks.claim(gpu=GPU, uid=queue(plane, model="warm"))
    plane.tasks.beat(task, Phase.RUNNING)
    plane.deploy("warm", readiness="tcp", replicas_min=0)
    plane.shift_deployment(wanted_at=timedelta(hours=-1))
    plane.scale()
    assert plane.row(uid).status in ("ready", "draining")
    plane.deploy("warm", readiness="tcp", replicas_min=1)
    plane.scale()
    for waiting in plane.live("warm")[1:]:
        plane.shift_replica(waiting.uid, created_at=-10 * SECOND)
    plane.scale()
    assert plane.row(uid).status == "draining"
    assert not plane.beat_uid(uid).stop
    plane.tasks.commit(task)
    assert plane.beat_uid(uid).stop


# Eviction.


def idle(plane: DeploymentHarness, name: str = "warm", **options: object) -> str:
    """A replica that has been ready and without a call for ten seconds."""
    uid = plane.start(name, use_gpu=True, **options)
    plane.shift_replica(uid, ready_at=-10 * SECOND, created_at=-10 * SECOND)
    return uid


def test_an_idle_replica_leaves_for_a_task_of_a_higher_priority_and_comes_back(plane: DeploymentHarness) -> None:
    uid = idle(plane)
    task = queue(plane, waited=3)
    assert plane.scale()
    row = plane.row(uid)
    assert (row.status, row.reason) == ("draining", ReplicaReason.EVICTED)
    assert plane.beat_uid(uid).stop
    plane.end_uid(uid)
    assert plane.row(uid).reason == ReplicaReason.EVICTED
    plane.scale()
    assert plane.statuses("warm") == ["wanted"], "its minimum wants it back"
    assert plane.try_claim(gpu=GPU) is None, "the task goes first"
    held = plane.tasks.claim(gpu=GPU)
    assert held.uid == task
    assert plane.try_claim(gpu=GPU) is None
    plane.tasks.commit(held)
    assert plane.try_claim(gpu=GPU)


def test_without_a_minimum_it_comes_back_with_the_next_call(plane: DeploymentHarness) -> None:
    uid = idle(plane)
    plane.deploy("warm")
    plane.demand("warm")
    plane.scale()
    plane.shift_deployment(called_at=-10 * SECOND, wanted_at=-10 * SECOND)
    plane.report("warm", idle_s=10, replicas={uid: 0})
    queue(plane, waited=3)
    plane.scale()
    assert plane.row(uid).status == "draining"
    plane.end_uid(uid)
    plane.report("warm", idle_s=11)
    plane.scale()
    assert plane.statuses("warm") == []
    plane.demand("warm")
    plane.scale()
    assert plane.statuses("warm") == ["wanted"]


@pytest.mark.parametrize(
    "why",
    [
        "the task has not waited long",
        "the task has no higher priority",
        "the replica has calls open",
        "calls wait for the replica",
        "the replica was called a moment ago",
        "the replica became ready a moment ago",
        "the replica shares its GPU",
        "another GPU is free",
        "another replica leaves already",
        "its consumer is busy with another task",
    ],
)
def test_no_replica_leaves_where(plane: DeploymentHarness, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = why == "the replica shares its GPU"
    is_busy = shares or why == "its consumer is busy with another task"
    uid = idle(plane, priority=0 if why == "the task has no higher priority" else -1, share_gpu=shares)
    # A moment ago stays one on a machine that is busy with other things.
    if why == "the task has not waited long":
        monkeypatch.setattr(evict, "EVICT_AFTER", HOUR)
    if why.endswith("a moment ago"):
        monkeypatch.setattr(evict, "IDLE_BEFORE_EVICTION", HOUR)
        plane.shift_replica(uid, ready_at=-2 * HOUR, created_at=-2 * HOUR)
    if is_busy:
        # Somebody else's task keeps its consumer from taking this one.
        plane.register("light")
        plane.tasks.claim(gpu=GPU, uid=plane.tasks.submit("light"))
    if why == "the replica has calls open":
        plane.report("warm", in_flight=1, replicas={uid: 1})
    if why == "calls wait for the replica":
        plane.report("warm", queued=1, replicas={uid: 0})
    if why == "the replica was called a moment ago":
        plane.report("warm", idle_s=1, replicas={uid: 0})
    if why == "the replica became ready a moment ago":
        plane.shift_replica(uid, ready_at=2 * HOUR)
    if why == "another GPU is free":
        plane.try_claim("bea", gpu=GPU2)
    if why == "another replica leaves already":
        plane.register("leaving", use_gpu=True)
        plane.deploy("leaving", replicas_min=1)
        plane.scale()
        held = plane.claim("bea", gpu=GPU2)
        plane.deploy("leaving", replicas_min=1, readiness="tcp")
        plane.scale()
        assert plane.row(held.uid).status == "draining"
    queue(plane, waited=10)
    plane.scale()
    assert plane.row(uid).status == "ready"


def test_the_replica_of_the_lowest_priority_leaves_and_only_one(plane: DeploymentHarness) -> None:
    dear = idle(plane, "dear", priority=-1)
    plane.register("cheap", use_gpu=True)
    plane.deploy("cheap", replicas_min=1, priority=-9)
    plane.scale()
    held = plane.claim("bea", gpu=GPU2)
    plane.beat(held, consumer="bea")
    plane.shift_replica(held.uid, ready_at=-10 * SECOND, created_at=-10 * SECOND)
    queue(plane, waited=3)
    queue(plane, waited=3)
    plane.scale()
    plane.scale()
    assert (plane.row(dear).status, plane.row(held.uid).status) == ("ready", "draining")


def test_a_replica_that_can_run_the_task_itself_stays(plane: DeploymentHarness) -> None:
    uid = idle(plane, serves_tasks=True)
    queue(plane, model="warm", waited=3)
    plane.scale()
    assert plane.row(uid).status == "ready"
    assert plane.tasks.claim(gpu=GPU).replica_uid == uid
