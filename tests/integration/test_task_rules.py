"""How a task is claimed, kept and lost: the same on PostgreSQL and on SQLite."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from contract.errors import StaleFence, TaskNotFound
from contract.schemas import Assignment
from contract.statuses import Phase, Reason, Status
from private_api.leases import AMNESTY_AFTER, LEASE
from private_api.tables import TaskRow
from private_api.tasks.attempts import attempt_archive, show_assignment
from private_api.tasks.limits import DEADLINE_GRACE, phase_limit
from tests.integration.task_harness import GPU, SIZES, Harness

SECOND = timedelta(seconds=1)


def test_a_claim_takes_the_task_that_the_bell_named(harness: Harness) -> None:
    harness.submit()
    named = harness.submit()
    assert harness.claim(uid=named).uid == named


def test_a_claim_without_a_name_takes_the_oldest_task(harness: Harness) -> None:
    uids = [harness.submit() for _ in range(3)]
    assert [harness.claim().uid for _ in uids] == uids
    assert harness.try_claim() is None


def test_a_claim_by_a_stale_bell_takes_the_next_task_instead(harness: Harness) -> None:
    held, waiting = harness.submit_and_claim(), harness.submit()
    assert harness.claim("bob", uid=held.uid).uid == waiting
    harness.submit()
    assert harness.try_claim("bob", uid="0" * 64) is not None


def test_a_claim_carries_everything_the_consumer_needs(harness: Harness) -> None:
    harness.register("scan", time_limit_s=77, memory_limit_bytes=2**30, isolation="compatible", pull_policy="never")
    uid = harness.submit("scan")
    held = harness.claim()
    assert (held.uid, held.fence, held.attempt, held.model_version, held.container_tag) == (uid, 1, 1, 1, "echo:1")
    assert (held.time_limit_s, held.memory_limit_bytes) == (77, 2**30)
    assert (held.isolation, held.pull_policy) == ("compatible", "never")
    assert held.lease_s == LEASE.total_seconds()
    archive = attempt_archive(harness.database, uid, held.fence, of_model=False)
    assert (archive.sha256, archive.size_bytes) == (held.input.sha256, held.input.size_bytes)
    assert harness.store.path(archive.key).stat().st_size == held.input.size_bytes
    assert held.model_archive is None
    with pytest.raises(StaleFence):
        attempt_archive(harness.database, uid, held.fence, of_model=True)


def test_a_claim_says_whether_its_version_ran_before(harness: Harness) -> None:
    first = harness.submit_and_claim()
    harness.fail(first, Reason.IMAGE_NOT_FOUND, exit_code=None)
    second = harness.submit_and_claim()
    assert (first.has_run, second.has_run) == (False, False)
    harness.commit(second)
    assert harness.submit_and_claim().has_run
    # Its next version may be another image.
    harness.register("echo", replace=True)
    assert not harness.submit_and_claim().has_run


def test_a_second_claim_of_a_held_task_is_refused(harness: Harness) -> None:
    uid = harness.submit_and_claim().uid
    assert harness.try_claim("bob", uid=uid) is None
    assert harness.row(uid).lease_owner == "ada"


def test_a_consumer_gets_only_the_kinds_of_task_it_can_run(harness: Harness) -> None:
    harness.register("big", use_gpu=True)
    on_gpu = harness.submit("big")
    assert harness.try_claim() is None
    assert harness.try_claim(uid=on_gpu) is None
    on_cpu = harness.submit()
    assert harness.claim("bob", gpu=GPU, cpu=False).uid == on_gpu
    assert harness.try_claim("bob", gpu=GPU, cpu=False, uid=on_cpu) is None
    assert harness.claim().uid == on_cpu


def test_a_consumer_with_a_gpu_takes_gpu_tasks_first(harness: Harness) -> None:
    harness.register("big", use_gpu=True)
    on_cpu, on_gpu = harness.submit(), harness.submit("big")
    assert [harness.claim(gpu=GPU).uid for _ in range(2)] == [on_gpu, on_cpu]


def test_consumers_that_claim_at_the_same_time_get_each_task_exactly_once(harness: Harness) -> None:
    uids = [harness.submit() for _ in range(40)]

    def claim_all(consumer: str) -> list[str]:
        claimed = []
        # By name, so that both go for the same task, and by poll.
        for uid in [*uids, *[None] * len(uids)]:
            if held := harness.try_claim(consumer, uid=uid):
                claimed.append(held.uid)
        return claimed

    with ThreadPoolExecutor(2) as pool:
        claimed = [uid for part in pool.map(claim_all, ["ada", "bob"]) for uid in part]
    assert Counter(claimed) == Counter(uids)
    assert all(harness.attempts(uid) == [(1, None)] for uid in uids)


def test_a_heartbeat_extends_the_lease(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.shift(held.uid, lease_until=-LEASE / 2)
    before = harness.now()
    reply = harness.beat(held)
    extended = harness.row(held.uid).lease_until
    assert extended is not None
    assert before + LEASE <= extended <= harness.now() + LEASE
    assert not reply.cancel
    assert harness.reap() == []


def test_a_heartbeat_starts_a_deadline_with_each_phase_and_not_with_each_beat(harness: Harness) -> None:
    harness.register("short", time_limit_s=100)
    harness.submit("short")
    began = harness.now()
    held = harness.claim()
    for phase, status in (
        (Phase.PREPARING, Status.LEASED),
        (Phase.RUNNING, Status.RUNNING),
        (Phase.DELIVERING, Status.RUNNING),
    ):
        first = beat_and_read(harness, held, phase)
        assert (first.status, first.phase) == (status, phase)
        assert first.deadline_at is not None
        limit = phase_limit(phase, 100)
        assert began + limit <= first.deadline_at <= harness.now() + limit
        assert beat_and_read(harness, held, phase).deadline_at == first.deadline_at
        began = harness.now()
    assert first.started_at is not None


def beat_and_read(harness: Harness, held: Assignment, phase: Phase) -> TaskRow:
    """The task's row after a beat, which must answer how long it is until the deadline in it."""
    before = harness.now()
    left = timedelta(seconds=harness.beat(held, phase).seconds_left)
    after = harness.now()
    row = harness.row(held.uid)
    assert row.deadline_at is not None
    assert row.deadline_at - after <= left <= row.deadline_at - before
    return row


@pytest.mark.parametrize("fence", [0, 2])
def test_a_heartbeat_under_another_fence_is_refused(harness: Harness, fence: int) -> None:
    held = harness.submit_and_claim()
    with pytest.raises(StaleFence):
        harness.beat(held.model_copy(update={"fence": fence}))
    with pytest.raises(StaleFence):
        show_assignment(harness.database, held.uid, fence, SIZES)
    assert show_assignment(harness.database, held.uid, held.fence, SIZES) == held


def test_fence_0_never_holds_a_task_that_nobody_claimed(harness: Harness) -> None:
    uid = harness.submit()
    held = harness.submit_and_claim("ada").model_copy(update={"uid": uid, "fence": 0})
    for action in (harness.beat, harness.commit, harness.fail, harness.release):
        with pytest.raises(StaleFence):
            action(held)
    assert harness.row(uid).status == Status.QUEUED


def test_a_task_nobody_knows_has_no_holder(harness: Harness) -> None:
    held = harness.submit_and_claim().model_copy(update={"uid": "0" * 64})
    for action in (harness.beat, harness.commit, harness.fail, harness.release):
        with pytest.raises(TaskNotFound):
            action(held)


def test_a_task_whose_lease_expired_is_queued_again_under_its_fence(harness: Harness) -> None:
    held = harness.submit_and_claim()
    bells = harness.bells()
    assert harness.expire(held.uid) == [held.uid]
    row = harness.row(held.uid)
    assert (row.status, row.fence, row.crashes, row.lease_owner, row.lease_until) == (Status.QUEUED, 1, 1, None, None)
    assert harness.bells() == bells + 1
    assert harness.reap() == []


def test_a_holder_that_was_cut_off_comes_back_as_long_as_nobody_else_claimed(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.expire(held.uid)
    harness.beat(held)
    row = harness.row(held.uid)
    assert (row.status, row.fence, row.lease_owner) == (Status.RUNNING, 1, "ada")
    assert harness.commit(held).status is Status.FINISHED
    assert harness.attempts(held.uid) == [(1, Status.FINISHED)]


def test_a_holder_that_was_cut_off_while_preparing_comes_back_as_leased(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.expire(held.uid)
    harness.beat(held, Phase.PREPARING)
    assert harness.row(held.uid).status == Status.LEASED


def test_a_holder_that_was_cut_off_keeps_the_deadline_of_its_phase(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.beat(held, Phase.RUNNING)
    harness.shift(held.uid, deadline_at=timedelta(hours=-1))
    deadline = harness.row(held.uid).deadline_at
    harness.expire(held.uid)
    harness.beat(held, Phase.RUNNING)
    assert harness.row(held.uid).deadline_at == deadline


def test_a_holder_that_was_cut_off_may_commit_fail_or_release_at_once(harness: Harness) -> None:
    helds = [harness.submit_and_claim() for _ in range(3)]
    for held in helds:
        harness.expire(held.uid)
    assert harness.commit(helds[0]).status is Status.FINISHED
    assert harness.fail(helds[1]).status is Status.FAILED
    assert harness.release(helds[2]).status is Status.QUEUED


def test_a_holder_cannot_come_back_once_another_claimed(harness: Harness) -> None:
    old = harness.submit_and_claim("ada")
    harness.expire(old.uid)
    new = harness.claim("bob")
    assert (new.uid, new.fence, new.attempt) == (old.uid, 2, 2)
    for action in (harness.beat, harness.commit, harness.fail, harness.release):
        with pytest.raises(StaleFence):
            action(old)
    assert harness.row(old.uid).lease_owner == "bob"
    assert harness.attempts(old.uid) == [(1, "lost"), (2, None)]


def test_the_third_crash_ends_the_task(harness: Harness) -> None:
    uid = harness.submit()
    for _ in range(3):
        harness.claim(uid=uid)
        assert harness.expire(uid) == [uid]
    row = harness.row(uid)
    assert (row.status, row.reason, row.crashes) == (Status.FAILED, Reason.CRASHED_REPEATEDLY, 3)
    assert "ada" in (row.detail or "")
    assert harness.attempts(uid)[-1] == (3, Reason.CRASHED_REPEATEDLY)


def test_the_server_ends_an_attempt_that_overstays_its_deadline_and_the_grace(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.beat(held)
    overdue = harness.beat(held).seconds_left
    # As much as the machine may need until the reaper looks.
    margin = timedelta(minutes=10)
    harness.shift(held.uid, deadline_at=timedelta(seconds=-overdue) - DEADLINE_GRACE + margin)
    assert harness.reap() == []
    harness.shift(held.uid, deadline_at=-margin)
    assert harness.reap() == [held.uid]
    row = harness.row(held.uid)
    assert (row.status, row.reason, row.fence) == (Status.FAILED, Reason.TIME_LIMIT, 2)
    with pytest.raises(StaleFence):
        harness.beat(held)
    with pytest.raises(StaleFence):
        harness.commit(held)


def test_leases_are_extended_and_nothing_is_taken_away_after_the_reaper_was_away(harness: Harness) -> None:
    held = harness.submit_and_claim()
    assert harness.reap() == []
    harness.shift(held.uid, lease_until=timedelta(minutes=-10), deadline_at=timedelta(days=-2))
    harness.set_reaper(AMNESTY_AFTER + SECOND)
    before = harness.now()
    assert harness.reap() == []
    row = harness.row(held.uid)
    assert (row.status, row.fence, row.crashes) == (Status.LEASED, 1, 0)
    assert row.lease_until is not None
    assert before + LEASE <= row.lease_until <= harness.now() + LEASE
    # Amnesty is for leases: a deadline that passed is judged by the next step.
    assert harness.reap() == [held.uid]


def test_an_outage_is_added_to_the_deadline_of_a_run_that_ended_meanwhile(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.beat(held)
    harness.reap()
    # The deadline passed an hour ago, in the middle of an outage of two.
    left = harness.beat(held).seconds_left
    harness.shift(held.uid, deadline_at=-timedelta(seconds=left) - timedelta(hours=1))
    harness.set_reaper(timedelta(hours=2))
    for _ in range(2):
        assert harness.reap() == []
    assert harness.beat(held).seconds_left > 0
    assert harness.commit(held).status is Status.FINISHED


def test_a_reaper_that_was_away_for_a_moment_gives_no_amnesty(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.reap()
    harness.set_reaper(SECOND)
    assert harness.expire(held.uid) == [held.uid]
