"""How a task is claimed, kept and lost: the same on PostgreSQL and on SQLite."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from contract.errors import StaleFence, TaskNotFound
from contract.statuses import Phase, Reason, Status
from private_api.tasks.claim import attempt_archive, show_assignment
from private_api.tasks.limits import DEADLINE_GRACE, LEASE, phase_limit
from tests.integration.task_bench import GPU, SIZES, Bench

SECOND = timedelta(seconds=1)
TICK = timedelta(seconds=2)
"""What the clock may move during a test without mattering."""


def test_a_claim_takes_the_task_that_the_bell_named(bench: Bench) -> None:
    bench.submit()
    named = bench.submit()
    assert bench.claim(uid=named).uid == named


def test_a_claim_without_a_name_takes_the_oldest_task(bench: Bench) -> None:
    uids = [bench.submit() for _ in range(3)]
    assert [bench.claim().uid for _ in uids] == uids
    assert bench.try_claim() is None


def test_a_claim_by_a_stale_bell_takes_the_next_task_instead(bench: Bench) -> None:
    held, waiting = bench.submit_and_claim(), bench.submit()
    assert bench.claim("bob", uid=held.uid).uid == waiting
    bench.submit()
    assert bench.try_claim("bob", uid="0" * 64) is not None


def test_a_claim_carries_everything_the_consumer_needs(bench: Bench) -> None:
    bench.register("scan", time_limit_s=77, memory_limit_bytes=2**30, isolation="compatible", pull_policy="never")
    uid = bench.submit("scan")
    held = bench.claim()
    assert (held.uid, held.fence, held.attempt, held.model_version, held.container_tag) == (uid, 1, 1, 1, "echo:1")
    assert (held.time_limit_s, held.memory_limit_bytes) == (77, 2**30)
    assert (held.isolation, held.pull_policy) == ("compatible", "never")
    assert held.lease_s == LEASE.total_seconds()
    key, archive = attempt_archive(bench.database, uid, held.fence, of_model=False)
    assert archive == held.input
    assert bench.store.path(key).stat().st_size == held.input.size_bytes
    assert held.model_archive is None
    with pytest.raises(StaleFence):
        attempt_archive(bench.database, uid, held.fence, of_model=True)


def test_a_second_claim_of_a_held_task_is_refused(bench: Bench) -> None:
    uid = bench.submit_and_claim().uid
    assert bench.try_claim("bob", uid=uid) is None
    assert bench.row(uid).lease_owner == "ada"


def test_a_consumer_gets_only_the_kinds_of_task_it_can_run(bench: Bench) -> None:
    bench.register("big", use_gpu=True)
    on_gpu = bench.submit("big")
    assert bench.try_claim() is None
    assert bench.try_claim(uid=on_gpu) is None
    on_cpu = bench.submit()
    assert bench.claim("bob", gpu=GPU, cpu=False).uid == on_gpu
    assert bench.try_claim("bob", gpu=GPU, cpu=False, uid=on_cpu) is None
    assert bench.claim().uid == on_cpu


def test_a_consumer_with_a_gpu_takes_gpu_tasks_first(bench: Bench) -> None:
    bench.register("big", use_gpu=True)
    on_cpu, on_gpu = bench.submit(), bench.submit("big")
    assert [bench.claim(gpu=GPU).uid for _ in range(2)] == [on_gpu, on_cpu]


def test_consumers_that_claim_at_the_same_time_get_each_task_exactly_once(bench: Bench) -> None:
    uids = [bench.submit() for _ in range(40)]

    def claim_all(consumer: str) -> list[str]:
        claimed = []
        # By name, so that both go for the same task, and by poll.
        for uid in [*uids, *[None] * len(uids)]:
            if held := bench.try_claim(consumer, uid=uid):
                claimed.append(held.uid)
        return claimed

    with ThreadPoolExecutor(2) as pool:
        claimed = [uid for part in pool.map(claim_all, ["ada", "bob"]) for uid in part]
    assert Counter(claimed) == Counter(uids)
    assert all(bench.attempts(uid) == [(1, None)] for uid in uids)


def test_a_heartbeat_extends_the_lease(bench: Bench) -> None:
    held = bench.submit_and_claim()
    claimed_until = bench.row(held.uid).lease_until
    assert claimed_until is not None
    bench.shift(held.uid, lease_until=timedelta(seconds=-50))
    reply = bench.beat(held)
    extended = bench.row(held.uid).lease_until
    assert extended is not None
    assert timedelta() <= extended - claimed_until < TICK
    assert not reply.cancel
    assert bench.reap() == []


def test_a_heartbeat_starts_a_deadline_with_each_phase_and_not_with_each_beat(bench: Bench) -> None:
    bench.register("short", time_limit_s=100)
    bench.submit("short")
    held = bench.claim()
    left = bench.beat(held, Phase.PREPARING).seconds_left
    assert left == pytest.approx(phase_limit(Phase.PREPARING, 100).total_seconds(), abs=2)
    assert bench.row(held.uid).status == Status.LEASED
    assert bench.beat(held, Phase.RUNNING).seconds_left == pytest.approx(100, abs=2)
    bench.shift(held.uid, deadline_at=timedelta(seconds=-40))
    assert bench.beat(held, Phase.RUNNING).seconds_left == pytest.approx(60, abs=2)
    assert bench.beat(held, Phase.DELIVERING).seconds_left > 3600
    row = bench.row(held.uid)
    assert (row.status, row.phase) == (Status.RUNNING, Phase.DELIVERING)
    assert row.started_at is not None


@pytest.mark.parametrize("fence", [0, 2])
def test_a_heartbeat_under_another_fence_is_refused(bench: Bench, fence: int) -> None:
    held = bench.submit_and_claim()
    with pytest.raises(StaleFence):
        bench.beat(held.model_copy(update={"fence": fence}))
    with pytest.raises(StaleFence):
        show_assignment(bench.database, held.uid, fence, SIZES)
    assert show_assignment(bench.database, held.uid, held.fence, SIZES) == held


def test_fence_0_never_holds_a_task_that_nobody_claimed(bench: Bench) -> None:
    uid = bench.submit()
    held = bench.submit_and_claim("ada").model_copy(update={"uid": uid, "fence": 0})
    for action in (bench.beat, bench.commit, bench.fail, bench.release):
        with pytest.raises(StaleFence):
            action(held)
    assert bench.row(uid).status == Status.QUEUED


def test_a_task_nobody_knows_has_no_holder(bench: Bench) -> None:
    held = bench.submit_and_claim().model_copy(update={"uid": "0" * 64})
    for action in (bench.beat, bench.commit, bench.fail, bench.release):
        with pytest.raises(TaskNotFound):
            action(held)


def test_a_task_whose_lease_expired_is_queued_again_under_its_fence(bench: Bench) -> None:
    held = bench.submit_and_claim()
    bells = bench.bells()
    assert bench.expire(held.uid) == [held.uid]
    row = bench.row(held.uid)
    assert (row.status, row.fence, row.crashes, row.lease_owner, row.lease_until) == (Status.QUEUED, 1, 1, None, None)
    assert bench.bells() == bells + 1
    assert bench.reap() == []


def test_a_holder_that_was_cut_off_comes_back_as_long_as_nobody_else_claimed(bench: Bench) -> None:
    held = bench.submit_and_claim()
    bench.expire(held.uid)
    bench.beat(held)
    row = bench.row(held.uid)
    assert (row.status, row.fence, row.lease_owner) == (Status.RUNNING, 1, "ada")
    assert bench.commit(held).status is Status.FINISHED
    assert bench.attempts(held.uid) == [(1, Status.FINISHED)]


def test_a_holder_that_was_cut_off_while_preparing_comes_back_as_leased(bench: Bench) -> None:
    held = bench.submit_and_claim()
    bench.expire(held.uid)
    bench.beat(held, Phase.PREPARING)
    assert bench.row(held.uid).status == Status.LEASED


def test_a_holder_that_was_cut_off_keeps_the_deadline_of_its_phase(bench: Bench) -> None:
    held = bench.submit_and_claim()
    bench.beat(held, Phase.RUNNING)
    bench.shift(held.uid, deadline_at=timedelta(hours=-1))
    deadline = bench.row(held.uid).deadline_at
    bench.expire(held.uid)
    bench.beat(held, Phase.RUNNING)
    assert bench.row(held.uid).deadline_at == deadline


def test_a_holder_that_was_cut_off_may_commit_fail_or_release_at_once(bench: Bench) -> None:
    helds = [bench.submit_and_claim() for _ in range(3)]
    for held in helds:
        bench.expire(held.uid)
    assert bench.commit(helds[0]).status is Status.FINISHED
    assert bench.fail(helds[1]).status is Status.FAILED
    assert bench.release(helds[2]).status is Status.QUEUED


def test_a_holder_cannot_come_back_once_another_claimed(bench: Bench) -> None:
    old = bench.submit_and_claim("ada")
    bench.expire(old.uid)
    new = bench.claim("bob")
    assert (new.uid, new.fence, new.attempt) == (old.uid, 2, 2)
    for action in (bench.beat, bench.commit, bench.fail, bench.release):
        with pytest.raises(StaleFence):
            action(old)
    assert bench.row(old.uid).lease_owner == "bob"
    assert bench.attempts(old.uid) == [(1, "lost"), (2, None)]


def test_the_third_crash_ends_the_task(bench: Bench) -> None:
    uid = bench.submit()
    for _ in range(3):
        bench.claim(uid=uid)
        assert bench.expire(uid) == [uid]
    row = bench.row(uid)
    assert (row.status, row.reason, row.crashes) == (Status.FAILED, Reason.CRASHED_REPEATEDLY, 3)
    assert "ada" in (row.detail or "")
    assert bench.attempts(uid)[-1] == (3, Reason.CRASHED_REPEATEDLY)


def test_the_server_ends_an_attempt_that_overstays_its_deadline_and_the_grace(bench: Bench) -> None:
    held = bench.submit_and_claim()
    bench.beat(held)
    overdue = bench.beat(held).seconds_left
    bench.shift(held.uid, deadline_at=timedelta(seconds=-overdue) - DEADLINE_GRACE + 10 * SECOND)
    assert bench.reap() == []
    bench.shift(held.uid, deadline_at=-20 * SECOND)
    assert bench.reap() == [held.uid]
    row = bench.row(held.uid)
    assert (row.status, row.reason, row.fence) == (Status.FAILED, Reason.TIME_LIMIT, 2)
    with pytest.raises(StaleFence):
        bench.beat(held)
    with pytest.raises(StaleFence):
        bench.commit(held)


def test_leases_are_extended_and_nothing_is_taken_away_after_the_reaper_was_away(bench: Bench) -> None:
    held = bench.submit_and_claim()
    assert bench.reap() == []
    bench.shift(held.uid, lease_until=timedelta(minutes=-10), deadline_at=timedelta(days=-2))
    bench.set_reaper(timedelta(seconds=16))
    assert bench.reap() == []
    row = bench.row(held.uid)
    assert (row.status, row.fence, row.crashes) == (Status.LEASED, 1, 0)
    assert row.lease_until is not None
    assert row.lease_until > row.created_at + LEASE - TICK
    # Amnesty is for leases: a deadline that passed is judged by the next step.
    assert bench.reap() == [held.uid]


def test_a_reaper_that_was_away_for_a_moment_gives_no_amnesty(bench: Bench) -> None:
    held = bench.submit_and_claim()
    bench.reap()
    bench.set_reaper(timedelta(seconds=10))
    assert bench.expire(held.uid) == [held.uid]
