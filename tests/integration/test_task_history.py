"""What is shown of a task's past, and to whom, on PostgreSQL and on SQLite."""

import pytest

from contract.access import ANONYMOUS, Caller, Scope
from contract.errors import TaskNotFound
from contract.heartbeats import Heartbeat
from contract.statuses import Phase
from private_api.placement.outlook import show_task
from private_api.tasks.attempts import beat_task
from private_api.tasks.history import list_attempts, list_events
from tests.integration.task_harness import Harness

ADA = Caller("ada", frozenset({Scope.SUBMIT}))
BOB = Caller("bob", frozenset({Scope.SUBMIT}))
OPERATOR = Caller("carol", frozenset({Scope.OPERATE}))
ADMIN = Caller("dan", frozenset({Scope.ADMIN}))


def fail_at_second_attempt(harness: Harness) -> str:
    uid = harness.submit(caller=ADA)
    harness.release(harness.claim(uid=uid), blameless=True)
    held = harness.claim("ada", uid=uid)
    harness.beat(held, Phase.RUNNING)
    harness.fail(held)
    return uid


def test_events_and_attempts_tell_a_tasks_past_in_its_order(harness: Harness) -> None:
    uid = fail_at_second_attempt(harness)
    events = list_events(harness.database, uid, ADA)
    assert [(event.old_status, event.new_status) for event in events] == [
        (None, "queued"),
        ("queued", "leased"),
        ("leased", "queued"),
        ("queued", "leased"),
        ("leased", "running"),
        ("running", "failed"),
    ]
    assert [event.reason for event in events] == [None] * 5 + ["exit_code"]
    assert [event.at for event in events] == sorted(event.at for event in events)
    first, second = list_attempts(harness.database, uid, ADA)
    assert (first.consumer, first.outcome, first.detail) == ("ada", "released", "the engine is away")
    assert (second.outcome, second.detail) == ("exit_code", "it broke")
    assert first.fence < second.fence == events[-1].fence
    assert first.ended_at is not None
    assert first.claimed_at <= first.ended_at <= second.claimed_at


def test_an_attempt_that_lasts_has_no_outcome_yet(harness: Harness) -> None:
    held = harness.submit_and_claim()
    (attempt,) = list_attempts(harness.database, held.uid, ANONYMOUS)
    assert (attempt.fence, attempt.ended_at, attempt.outcome) == (held.fence, None, None)


def test_the_past_of_a_task_is_for_those_who_see_it_and_its_details_for_owner_and_admin(harness: Harness) -> None:
    uid = fail_at_second_attempt(harness)
    for caller in (BOB, ANONYMOUS):
        for ask in (list_events, list_attempts):
            with pytest.raises(TaskNotFound):
                ask(harness.database, uid, caller)
    for caller, detail in ((ADA, "it broke"), (ADMIN, "it broke"), (OPERATOR, None)):
        assert list_attempts(harness.database, uid, caller)[-1].detail == detail
    assert len(list_events(harness.database, uid, OPERATOR)) == 6


def test_what_ran_stands_in_the_attempt_and_in_the_task(harness: Harness) -> None:
    first, second = (f"registry.example.org/echo@sha256:{digit * 64}" for digit in "12")
    held = harness.claim(uid=harness.submit())
    beat_task(harness.database, held.uid, held.fence, Heartbeat(consumer="ada", phase=Phase.RUNNING, image=first))

    def images() -> list[str | None]:
        attempts = list_attempts(harness.database, held.uid, ANONYMOUS)
        return [
            show_task(harness.database, harness.logs, held.uid, ANONYMOUS).image,
            *(attempt.image for attempt in attempts),
        ]

    assert images() == [first, first]
    harness.beat(held)
    harness.release(held, blameless=True)
    held = harness.claim(uid=held.uid)
    assert images() == [None, first, None]
    # A run may end before its first heartbeat.
    harness.commit(held, harness.upload(held).model_copy(update={"image": second}))
    assert images() == [second, first, second]
