"""Preparing ahead: who gets the next task of a consumer that runs one, and who takes it over."""

from datetime import timedelta

import pytest

from contract.access import ANONYMOUS, Caller, Scope
from contract.claims import HeldAttempt
from contract.errors import StaleFence
from contract.heartbeats import Heartbeat
from contract.schemas import Assignment
from contract.statuses import Phase, Status, WaitsFor
from private_api.placement.consumers import set_draining
from private_api.placement.fleet import show_consumer
from private_api.placement.outlook import show_task
from private_api.tasks.attempts import beat_task
from private_api.tasks.cancel import cancel_task
from private_api.tasks.limits import MAX_CRASHES
from tests.integration.deployment_harness import DeploymentHarness
from tests.integration.task_harness import GPU, Harness


def ahead(harness: Harness, consumer: str = "ada", **options: object) -> Assignment | None:
    return harness.try_claim(consumer, ahead=True, **options)  # type: ignore[arg-type]


def prepared(harness: Harness, consumer: str = "ada", **options: object) -> Assignment:
    """A consumer runs one task and prepares another one."""
    harness.beat(harness.claim(consumer, **options), consumer=consumer)  # type: ignore[arg-type]
    assignment = ahead(harness, consumer, **options)
    assert assignment is not None
    assert assignment.is_ahead
    return assignment


def test_what_is_prepared_ahead_begins_once(harness: Harness) -> None:
    harness.submit()
    uid = harness.submit()
    held = prepared(harness)
    assert held.uid == uid
    assert harness.begin(held).status is Status.LEASED
    # The answer was lost, and it is asked again.
    assert harness.begin(held).status is Status.LEASED
    # From here on it is an attempt like any other.
    assert harness.try_claim("bob") is None
    assert harness.beat(held).cancel is False
    assert harness.row(uid).status is Status.RUNNING


def test_one_task_at_a_time_is_prepared_ahead(harness: Harness) -> None:
    for _ in range(3):
        harness.submit()
    prepared(harness)
    assert ahead(harness) is None


def test_nothing_is_prepared_ahead_while_another_consumer_is_free(harness: Harness) -> None:
    harness.submit()
    harness.submit()
    harness.start("bob")
    harness.beat(harness.claim())
    assert ahead(harness) is None
    # One that is away for good, drains, or runs a task itself is not waited for.
    harness.silence("bob", timedelta(minutes=2))
    assert ahead(harness) is not None


def test_a_consumer_that_only_delivers_is_free(harness: Harness) -> None:
    harness.submit()
    harness.submit()
    harness.submit()
    first, second = harness.claim("ada"), harness.claim("bob")
    harness.beat(first)
    harness.beat(second, Phase.DELIVERING, consumer="bob")
    assert ahead(harness) is None
    harness.beat(harness.claim("bob"), consumer="bob")


def test_a_gpu_is_not_kept_from_a_task_by_a_free_consumer_without_one(harness: Harness) -> None:
    harness.register("gpu", use_gpu=True)
    harness.start("bob")
    harness.submit("gpu")
    harness.submit()
    uid = harness.submit("gpu")
    held = prepared(harness, gpu=GPU)
    assert held.uid == uid


def test_a_consumer_that_becomes_free_takes_it_over_and_nobody_is_blamed(harness: Harness) -> None:
    harness.submit()
    uid = harness.submit()
    held = prepared(harness)
    taken = harness.claim("bob")
    assert (taken.uid, taken.is_ahead) == (uid, False)
    with pytest.raises(StaleFence):
        harness.begin(held)
    with pytest.raises(StaleFence):
        harness.beat(held, Phase.PREPARING)
    assert harness.attempts(uid) == [(held.fence, "released"), (taken.fence, None)]
    row = harness.row(uid)
    assert (row.crashes, row.infrastructure_failures) == (0, 0)


def test_what_goes_first_is_claimed_before_it_is_taken_over(harness: Harness) -> None:
    harness.submit()
    waiting = harness.submit()
    held = prepared(harness)
    urgent, later = harness.submit(priority=5), harness.submit()
    assert harness.claim("bob", uid=later).uid == urgent
    assert harness.claim("cy", uid=later).uid == waiting
    assert harness.claim("dan").uid == later
    with pytest.raises(StaleFence):
        harness.begin(held)


def test_a_consumer_does_not_take_it_from_itself(harness: Harness) -> None:
    harness.submit()
    harness.submit()
    held = prepared(harness)
    assert harness.try_claim() is None
    assert harness.begin(held).status is Status.LEASED


def test_what_runs_is_taken_over_by_nobody_even_if_its_holder_did_not_ask(harness: Harness) -> None:
    harness.submit()
    harness.submit()
    held = prepared(harness)
    harness.beat(held)
    assert harness.try_claim("bob") is None
    assert harness.commit(held).status is Status.FINISHED


def test_it_gives_way_to_a_task_of_a_higher_priority(harness: Harness) -> None:
    harness.submit()
    uid = harness.submit()
    held = prepared(harness)
    urgent = harness.submit(priority=5)
    assert harness.begin(held).status is Status.QUEUED
    assert harness.claim().uid == urgent
    assert harness.claim().uid == uid
    assert harness.attempts(uid)[0] == (held.fence, "released")


def test_a_consumer_that_is_to_drain_gives_it_back(harness: Harness) -> None:
    harness.start()
    harness.submit()
    uid = harness.submit()
    bells = harness.bells()
    held = prepared(harness)
    set_draining(harness.database, "ada", is_draining=True)
    assert harness.row(uid).status is Status.QUEUED
    assert harness.bells() == bells + 1
    with pytest.raises(StaleFence):
        harness.begin(held)


def test_a_consumer_that_dies_is_not_held_against_what_it_prepared(harness: Harness) -> None:
    harness.submit()
    uid = harness.submit()
    harness.beat(harness.claim())
    for _ in range(MAX_CRASHES + 1):
        assert ahead(harness) is not None
        assert harness.expire(uid) == [uid]
    row = harness.row(uid)
    assert (row.status, row.crashes) == (Status.QUEUED, 0)


def test_it_waits_for_the_task_before_it_without_a_deadline(harness: Harness) -> None:
    harness.submit()
    uid = harness.submit()
    held = prepared(harness)
    assert harness.row(uid).deadline_at is not None
    beat_task(harness.database, uid, held.fence, Heartbeat(consumer="ada", phase=Phase.PREPARING, is_ready=True))
    assert harness.row(uid).deadline_at is None
    harness.begin(held)
    assert harness.row(uid).deadline_at is not None


def test_its_owner_is_told_what_it_waits_for_and_can_cancel_it(harness: Harness) -> None:
    harness.submit()
    uid = harness.submit()
    held = prepared(harness)
    told = show_task(harness.database, harness.logs, uid, ANONYMOUS)
    assert (told.waits_for, told.wait_detail) == (
        WaitsFor.FREE_CONSUMER,
        "ada prepares it while it runs another task",
    )
    assert told.position == 0
    cancel_task(harness.database, uid, ANONYMOUS)
    assert harness.row(uid).status is Status.CANCELLED
    with pytest.raises(StaleFence):
        harness.beat(held, Phase.PREPARING)
    assert harness.try_claim("bob") is None


def test_a_consumer_shows_what_it_runs_and_not_what_it_prepares(harness: Harness) -> None:
    running = harness.submit()
    harness.submit()
    prepared(harness)
    operator = Caller(owner="op", scopes=frozenset({Scope.OPERATE}))
    task = show_consumer(harness.database, operator, "ada").task
    assert task is not None
    assert task.uid == running


def test_a_claim_that_does_not_name_it_gives_it_back(harness: Harness) -> None:
    harness.start()
    first, uid = harness.submit(), harness.submit()
    running = harness.claim()
    held = prepared_beside(harness, running)
    assert held.uid == uid
    named = [HeldAttempt(uid=first, fence=running.fence)]
    again = harness.claim(process="one", number=9, holds=named, ahead=True)
    assert (again.uid, again.is_ahead) == (uid, True)
    with pytest.raises(StaleFence):
        harness.begin(held)


def prepared_beside(harness: Harness, running: Assignment) -> Assignment:
    named = [HeldAttempt(uid=running.uid, fence=running.fence)]
    return harness.claim(process="one", number=8, holds=named, ahead=True)


def test_how_long_it_waited_for_the_task_before_it_is_no_part_of_what_its_model_takes(harness: Harness) -> None:
    harness.submit()
    harness.submit()
    held = prepared(harness)
    harness.shift_claim(held, timedelta(hours=-1))
    harness.begin(held)
    harness.shift_begin(held, timedelta(seconds=-60))
    harness.commit(held)
    eta = show_task(harness.database, harness.logs, harness.submit(), ANONYMOUS).eta
    assert eta is not None
    assert 60 <= eta < 3600


# Beside models that are kept warm.


def on_gpu(plane: DeploymentHarness, count: int) -> list[str]:
    plane.register("batch", use_gpu=True)
    return [plane.tasks.submit("batch") for _ in range(count)]


def want(plane: DeploymentHarness) -> None:
    plane.register("warm", use_gpu=True)
    plane.deploy("warm", replicas_min=1, priority=0)
    plane.scale()


def test_nothing_is_prepared_ahead_of_a_model_that_gets_the_gpu_first(plane: DeploymentHarness) -> None:
    on_gpu(plane, 2)
    plane.tasks.beat(plane.tasks.claim(gpu=GPU))
    want(plane)
    assert ahead(plane.tasks, gpu=GPU) is None


def test_what_is_prepared_gives_way_to_a_model_that_gets_the_gpu_first(plane: DeploymentHarness) -> None:
    on_gpu(plane, 2)
    running = plane.tasks.claim(gpu=GPU)
    plane.tasks.beat(running)
    held = ahead(plane.tasks, gpu=GPU)
    assert held is not None
    want(plane)
    plane.tasks.commit(running)
    assert plane.tasks.begin(held).status is Status.QUEUED
    assert plane.tasks.try_claim(gpu=GPU) is None
    assert plane.try_claim(gpu=GPU) is not None


def test_a_gpu_whose_task_only_delivers_is_free_for_a_model(plane: DeploymentHarness) -> None:
    plane.tasks.start(gpu=GPU)
    on_gpu(plane, 2)
    running = plane.tasks.claim(gpu=GPU, process="one", number=1)
    plane.tasks.beat(running)
    want(plane)
    # The consumer knows before its next heartbeat says so.
    over = [HeldAttempt(uid=running.uid, fence=running.fence, is_delivering=True)]
    assert plane.tasks.try_claim(gpu=GPU, process="one", number=2, holds=over) is None
    assert plane.try_claim(gpu=GPU) is None
    plane.tasks.beat(running, Phase.DELIVERING)
    assert plane.try_claim(gpu=GPU) is not None


def test_a_consumer_with_a_warm_model_prepares_nothing_ahead(plane: DeploymentHarness) -> None:
    plane.start("light")
    plane.register("batch")
    plane.tasks.submit("batch")
    plane.tasks.submit("batch")
    plane.tasks.beat(plane.tasks.claim())
    assert ahead(plane.tasks) is None
