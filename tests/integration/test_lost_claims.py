"""What a claim says that its consumer holds, and whose fault a failure is."""

from datetime import timedelta

import pytest

from contract.access import ANONYMOUS
from contract.claims import HeldAttempt
from contract.errors import StaleFence
from contract.schemas import Assignment
from contract.statuses import Reason, Status
from private_api.placement.consumers import set_draining
from private_api.tasks.cancel import cancel_task
from private_api.tasks.limits import MAX_CRASHES, MAX_INFRASTRUCTURE_FAILURES, MOST_FAILURES
from tests.integration.task_harness import GPU, Harness

DUE = timedelta(days=-1)


def said(number: int, *helds: Assignment, process: str = "one") -> dict[str, object]:
    holds = [HeldAttempt(uid=held.uid, fence=held.fence) for held in helds]
    return {"process": process, "number": number, "holds": holds}


def test_a_claim_whose_answer_was_lost_is_given_back_at_the_next_one_and_blames_nobody(harness: Harness) -> None:
    uid = harness.submit()
    harness.start()
    for number in range(1, MAX_CRASHES + 2):
        # Nobody gets the answer.
        assert harness.claim(**said(number)).fence == 2 * number - 1
        if number % 2:
            # Whether or not the lease expired before the consumer could ask again.
            assert harness.expire(uid) == [uid]
    row = harness.row(uid)
    assert (row.status, row.crashes, row.infrastructure_failures) == (Status.LEASED, 0, 0)
    assert harness.attempts(uid)[-2:] == [(5, "released"), (7, None)]


def test_what_a_claim_names_stays_and_the_rest_keeps_its_place_in_the_queue(harness: Harness) -> None:
    harness.start()
    kept, lost, later = harness.submit(), harness.submit(), harness.submit()
    held = harness.claim(**said(1))
    harness.claim(**said(2, held))
    again = harness.claim(**said(3, held))
    assert (held.uid, again.uid) == (kept, lost)
    assert harness.beat(held).cancel is False
    assert harness.row(kept).status is Status.RUNNING
    assert harness.row(later).status is Status.QUEUED
    # Under an older fence is not that attempt.
    assert harness.claim(**said(4, held.model_copy(update={"fence": 9}))).uid == kept
    with pytest.raises(StaleFence):
        harness.beat(held)


def test_a_task_whose_owner_cancelled_it_ends_when_its_consumer_does_not_have_it(harness: Harness) -> None:
    uid = harness.submit()
    harness.start()
    harness.claim(**said(1))
    cancel_task(harness.database, uid, ANONYMOUS)
    assert harness.try_claim(**said(2)) is None
    assert harness.row(uid).status is Status.CANCELLED


def test_a_draining_consumer_gives_back_what_it_does_not_have(harness: Harness) -> None:
    uid = harness.submit()
    harness.start()
    harness.claim(**said(1))
    set_draining(harness.database, "ada", is_draining=True)
    assert harness.try_claim(**said(2)) is None
    assert harness.row(uid).status is Status.QUEUED


def test_a_claim_that_arrives_after_a_later_one_takes_nothing_and_gives_nothing_back(harness: Harness) -> None:
    harness.submit()
    harness.submit()
    harness.start()
    held = harness.claim(**said(2))
    assert harness.try_claim(**said(1)) is None
    assert harness.try_claim(**said(2)) is None
    # Of the process before, which may have sent it long ago: its word counts for nothing.
    harness.start(process="two")
    late = harness.claim(**said(7, process="one"))
    assert harness.beat(held).cancel is False
    # The living process names what it holds, and what the dead one got goes back.
    assert harness.claim(**said(1, held, process="two")).uid == late.uid


def test_a_consumer_that_does_not_say_keeps_what_it_has(harness: Harness) -> None:
    harness.submit()
    harness.submit()
    harness.start(process=None)
    first, second = harness.claim(), harness.claim()
    assert [harness.beat(held).cancel for held in (first, second)] == [False, False]


def test_a_holder_that_comes_back_takes_its_crash_back(harness: Harness) -> None:
    held = harness.submit_and_claim()
    for _ in range(MAX_CRASHES + 1):
        assert harness.expire(held.uid) == [held.uid]
        assert harness.row(held.uid).crashes == 1
        harness.beat(held)
        assert harness.row(held.uid).crashes == 0


def test_so_does_one_that_comes_back_with_the_end_of_its_task(harness: Harness) -> None:
    for settle in (harness.commit, harness.fail):
        held = harness.submit_and_claim()
        harness.expire(held.uid)
        settle(held)
        assert harness.row(held.uid).crashes == 0


def fail_once(harness: Harness, uid: str, consumer: str) -> Status:
    harness.shift(uid, not_before=DUE)
    return harness.release(harness.claim(consumer, uid=uid)).status


def test_the_failures_of_one_consumer_do_not_end_a_task_that_another_may_run(harness: Harness) -> None:
    uid = harness.submit()
    harness.start("bob")
    for _ in range(MAX_INFRASTRUCTURE_FAILURES + 2):
        assert fail_once(harness, uid, "ada") is Status.QUEUED
    # Now every consumer there is had its try.
    assert fail_once(harness, uid, "bob") is Status.FAILED
    row = harness.row(uid)
    assert row.reason is Reason.INFRASTRUCTURE
    assert str(row.infrastructure_failures) in (row.detail or "")


@pytest.mark.parametrize("why", ["silent", "draining", "not of its kind"])
def test_a_consumer_that_could_not_run_it_is_not_waited_for(harness: Harness, why: str) -> None:
    harness.register("big", use_gpu=True)
    uid = harness.submit("big" if why == "not of its kind" else "echo")
    harness.start("bob")
    if why == "silent":
        harness.silence("bob", timedelta(minutes=2))
    if why == "draining":
        set_draining(harness.database, "bob", is_draining=True)
    for _ in range(MAX_INFRASTRUCTURE_FAILURES):
        harness.shift(uid, not_before=DUE)
        status = harness.release(harness.claim("ada", gpu=GPU, uid=uid)).status
    assert status is Status.FAILED


def test_where_nobody_else_takes_it_a_task_ends_all_the_same(harness: Harness) -> None:
    uid = harness.submit()
    for failures in range(1, MAX_INFRASTRUCTURE_FAILURES * MOST_FAILURES + 1):
        if failures % 10 == 1:
            harness.start("bob")
        status = fail_once(harness, uid, "ada")
        assert (status is Status.FAILED) == (failures == MAX_INFRASTRUCTURE_FAILURES * MOST_FAILURES)


def test_the_crashes_of_one_consumer_do_not_end_a_task_but_those_of_three_do(harness: Harness) -> None:
    uid, of_three = harness.submit(), harness.submit()
    for name in ("ada", "bob", "cid", "dan"):
        harness.start(name)
    for _ in range(MAX_CRASHES + 1):
        harness.claim("ada", uid=uid)
        harness.expire(uid)
    assert harness.row(uid).status is Status.QUEUED
    for name in ("ada", "bob", "cid"):
        harness.claim(name, uid=of_three)
        harness.expire(of_three)
    assert harness.row(of_three).reason is Reason.CRASHED_REPEATEDLY
