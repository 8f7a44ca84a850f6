"""Tasks behind replicas that always have calls: after a bounded wait they have a turn, then the calls have theirs."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from contract.access import ANONYMOUS
from contract.deployments import ReplicaReason
from contract.errors import ModelExists
from contract.schemas import Assignment
from private_api.deployments.deploy import undeploy_model
from private_api.settings import YIELD_AFTER
from private_api.tables import ConsumerRow
from tests.integration.deployment_harness import DeploymentHarness
from tests.integration.task_harness import GPU, SetClock

SECOND = timedelta(seconds=1)
LONG = YIELD_AFTER + SECOND
MOST = YIELD_AFTER / 2
"""Long, and shorter however slow this machine is."""
GPU2 = GPU[:-1] + "2"
GPUS = {"ada": GPU, "bea": GPU2}


@pytest.fixture
def database(database_url: str) -> Iterator[SetClock]:
    """A fresh, migrated database whose clock can be set: the test runs once on each kind."""
    database = SetClock(database_url)
    yield database
    database.close()


def wait(plane: DeploymentHarness, by: timedelta) -> None:
    """Let time pass; consumers go on asking."""
    assert isinstance(plane.tasks.database, SetClock)
    plane.tasks.database.offset += by
    # Nobody watched the clock meanwhile: it did not jump.
    plane.tasks.database.last_look = None
    with plane.tasks.database.write() as session:
        for consumer in session.query(ConsumerRow):
            consumer.seen_at += by


def call(plane: DeploymentHarness, name: str = "warm") -> None:
    """Every replica of the deployment that is ready has a call open, as the gateway reports now."""
    ready = {replica.uid: 1 for replica in plane.live(name) if replica.status == "ready"}
    plane.report(name, in_flight=max(1, len(ready)), replicas=ready)


def queue(plane: DeploymentHarness, priority: int = 0, model: str = "batch") -> str:
    with suppress(ModelExists):
        plane.register(model, use_gpu=True)
    return plane.tasks.submit(model, priority=priority)


def leave(plane: DeploymentHarness, uid: str) -> None:
    """The gateway has no call open on a replica that drains, and its container ends."""
    plane.report("warm", queued=1)
    assert plane.beat_uid(uid).stop
    plane.end_uid(uid)


def take(plane: DeploymentHarness, consumer: str = "ada") -> Assignment | None:
    return plane.tasks.try_claim(consumer, gpu=GPUS[consumer], cpu=False)


def come_back(plane: DeploymentHarness, consumer: str = "ada") -> str:
    held = plane.claim(consumer, gpu=GPUS[consumer])
    plane.beat(held, consumer=consumer)
    return held.uid


def is_ready(plane: DeploymentHarness, uid: str) -> bool:
    """After a look at who has to leave, while calls are open."""
    call(plane)
    plane.scale()
    return plane.row(uid).status == "ready"


def busy(plane: DeploymentHarness, **serving: Any) -> str:
    """A replica that has had calls open for long."""
    uid = plane.start("warm", use_gpu=True, **serving)
    wait(plane, LONG)
    return uid


def test_tasks_that_waited_for_long_have_a_turn_and_then_the_replica_comes_back(plane: DeploymentHarness) -> None:
    uid = busy(plane)
    first = queue(plane)
    assert is_ready(plane, uid)
    wait(plane, MOST)
    second = queue(plane)
    assert is_ready(plane, uid)
    wait(plane, LONG - MOST)
    assert not is_ready(plane, uid)
    row = plane.row(uid)
    assert (row.status, row.reason) == ("draining", ReplicaReason.EVICTED)
    assert plane.statuses("warm") == ["draining", "wanted"], "calls that wait have it come back"
    assert not plane.beat_uid(uid).stop, "its call is still open"
    wait(plane, SECOND)
    late = queue(plane)
    leave(plane, uid)
    for of_turn in (first, second):
        assert plane.try_claim(gpu=GPU) is None, "the tasks that waited when it left go first"
        held = take(plane)
        assert held is not None
        assert held.uid == of_turn
        assert plane.try_claim(gpu=GPU) is None
        wait(plane, LONG)
        plane.tasks.commit(held)
    assert take(plane) is None, "a task that came later waits for the next turn"
    uid = come_back(plane)
    assert plane.row(uid).deployment_id is not None
    # The calls have the GPU for as long, whatever waits.
    wait(plane, MOST)
    assert is_ready(plane, uid)
    wait(plane, LONG - MOST)
    assert not is_ready(plane, uid)
    leave(plane, uid)
    held = take(plane)
    assert held is not None
    assert held.uid == late


@pytest.mark.parametrize("priority", [0, 5])
def test_a_replica_keeps_its_gpu_from_tasks_of_its_priority_and_below(plane: DeploymentHarness, priority: int) -> None:
    uid = busy(plane, priority=priority)
    queue(plane)
    wait(plane, LONG)
    assert is_ready(plane, uid)
    queue(plane, priority=priority + 1)
    wait(plane, LONG)
    assert not is_ready(plane, uid)


def test_the_replica_that_comes_back_goes_before_later_tasks_of_any_priority(plane: DeploymentHarness) -> None:
    uid = busy(plane)
    of_turn = queue(plane)
    wait(plane, LONG)
    assert not is_ready(plane, uid)
    wait(plane, SECOND)
    leave(plane, uid)
    # Among tasks priority decides.
    for expected in (queue(plane, priority=50), of_turn):
        held = take(plane)
        assert held is not None
        assert held.uid == expected
        plane.tasks.commit(held)
    queue(plane, priority=50)
    assert take(plane) is None
    assert come_back(plane)


def test_a_replica_that_nobody_calls_leaves_soon_as_ever_and_waits_behind_every_task(plane: DeploymentHarness) -> None:
    uid = busy(plane)
    queue(plane)
    wait(plane, 6 * SECOND)
    plane.report("warm", replicas={uid: 0})
    plane.scale()
    assert plane.row(uid).status == "draining"
    plane.scale()
    wait(plane, SECOND)
    queue(plane)
    leave(plane, uid)
    for _ in range(2):
        assert plane.try_claim(gpu=GPU) is None
        held = take(plane)
        assert held is not None
        plane.tasks.commit(held)
    assert come_back(plane)


def two_replicas(plane: DeploymentHarness) -> list[str]:
    """Two replicas of one deployment on two GPUs, both called all the time."""
    plane.register("warm", use_gpu=True)
    plane.deploy("warm", replicas_min=2, replicas_max=2)
    plane.scale()
    uids = [come_back(plane, consumer) for consumer in GPUS]
    wait(plane, LONG)
    return uids


def test_of_two_gpus_one_is_left_to_tasks_while_these_move_on(plane: DeploymentHarness) -> None:
    uids = two_replicas(plane)
    for _ in range(4):
        queue(plane)
    wait(plane, LONG)
    call(plane)
    plane.scale()
    call(plane)
    plane.scale()
    first, second = uids
    assert [plane.row(uid).status for uid in uids] == ["draining", "ready"], "one at a time, the longest ready first"
    plane.report("warm", in_flight=1, replicas={second: 1})
    assert plane.beat_uid(first).stop
    plane.end_uid(first)
    for _ in range(3):
        held = take(plane)
        assert held is not None
        wait(plane, MOST)
        assert is_ready(plane, second), "a task was given a GPU within the time"
        plane.tasks.commit(held)
    # The last one takes so long that the one behind it, which came later, stands still.
    assert take(plane) is not None
    queue(plane)
    wait(plane, LONG)
    assert not is_ready(plane, second)


def test_tasks_of_a_higher_priority_that_move_on_do_not_let_others_starve(plane: DeploymentHarness) -> None:
    uid = busy(plane)
    plane.tasks.try_claim("bea", gpu=GPU2, cpu=False)
    low = queue(plane)
    for _ in range(3):
        queue(plane, priority=3)
        held = take(plane, "bea")
        assert held is not None
        assert held.uid != low
        plane.tasks.commit(held)
        wait(plane, YIELD_AFTER / 3 + SECOND)
    queue(plane, priority=3)
    assert take(plane, "bea") is not None
    assert not is_ready(plane, uid)


def test_tasks_that_run_inside_a_replica_do_not_count_as_having_got_its_gpu(plane: DeploymentHarness) -> None:
    uid = busy(plane, serves_tasks=True)
    queue(plane, priority=-5)
    queue(plane)
    wait(plane, MOST)
    plane.report("warm", replicas={uid: 0})
    inside = plane.tasks.claim(gpu=GPU, uid=plane.tasks.submit("warm"))
    assert inside.replica_uid == uid
    plane.tasks.commit(inside)
    wait(plane, LONG - MOST)
    assert not is_ready(plane, uid)


def test_no_replica_leaves_for_a_task_that_its_consumer_has_no_disk_for(plane: DeploymentHarness) -> None:
    uid = busy(plane)
    queue(plane)
    wait(plane, LONG)
    cramp(plane, free_bytes=10)
    assert is_ready(plane, uid)
    cramp(plane, free_bytes=10**6)
    assert not is_ready(plane, uid)
    # Nor does it wait for one: another consumer may take that.
    leave(plane, uid)
    cramp(plane, free_bytes=10)
    assert come_back(plane)


def cramp(plane: DeploymentHarness, *, free_bytes: int) -> None:
    with plane.tasks.database.write() as session:
        session.get_one(ConsumerRow, "ada").free_bytes = free_bytes


def test_a_jump_of_the_clock_changes_nobodys_place(plane: DeploymentHarness) -> None:
    uid = busy(plane)
    of_turn = queue(plane)
    wait(plane, LONG)
    assert not is_ready(plane, uid)
    assert isinstance(plane.tasks.database, SetClock)
    plane.tasks.database.offset += timedelta(hours=1)
    plane.scale()
    queue(plane)
    leave(plane, uid)
    assert plane.try_claim(gpu=GPU) is None
    held = take(plane)
    assert held is not None
    assert held.uid == of_turn
    plane.tasks.commit(held)
    assert take(plane) is None
    assert come_back(plane)


def test_what_waits_says_so_and_what_is_removed_comes_back_no_more(plane: DeploymentHarness) -> None:
    uid = busy(plane)
    queue(plane)
    wait(plane, LONG)
    assert not is_ready(plane, uid)
    wait(plane, 5 * SECOND)
    call(plane)
    plane.scale()
    (wanted,) = [replica for replica in plane.live("warm") if replica.status == "wanted"]
    assert wanted.detail == "left its GPU to tasks that had waited for long, and comes back after them"
    leave(plane, uid)
    running = take(plane)
    assert running is not None
    plane.scale()
    (wanted,) = plane.live("warm")
    assert wanted.detail == "left its GPU to tasks that had waited for long, and comes back after them"
    plane.tasks.commit(running)
    plane.scale()
    (wanted,) = plane.live("warm")
    assert wanted.detail is None
    undeploy_model(plane.tasks.database, "warm", ANONYMOUS)
    assert plane.row(wanted.uid).status == "ended"
    late = queue(plane)
    held = take(plane)
    assert held is not None
    assert held.uid == late


def test_a_consumer_takes_no_task_without_a_gpu_while_one_with_it_is_to_have_its_turn(plane: DeploymentHarness) -> None:
    uid = busy(plane)
    plane.register("light")
    running, waiting = (plane.tasks.submit("light") for _ in range(2))
    held = plane.tasks.claim(gpu=GPU)
    assert held.uid == running
    of_turn = queue(plane)
    wait(plane, LONG)
    assert is_ready(plane, uid), "its consumer could not take the task yet"
    plane.tasks.commit(held)
    call(plane)
    assert plane.tasks.try_claim(gpu=GPU) is None
    assert not is_ready(plane, uid)
    assert plane.tasks.try_claim(gpu=GPU) is None, "its call is still open"
    # Another consumer is not kept from it.
    held = plane.tasks.claim("cid")
    assert held.uid == waiting
    leave(plane, uid)
    assert plane.tasks.claim(gpu=GPU).uid == of_turn


def test_a_bell_that_a_consumer_cannot_follow_is_passed_on(plane: DeploymentHarness) -> None:
    busy(plane)
    plane.register("light")
    queue(plane)
    wait(plane, LONG)
    call(plane)
    plane.tasks.try_claim("cid")
    uid = plane.tasks.submit("light")
    before = plane.tasks.bells()
    assert plane.tasks.try_claim(gpu=GPU, uid=uid) is None
    assert plane.tasks.bells() == before + 1
