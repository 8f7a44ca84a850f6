"""Quotas of owners: what is refused at them and what is not, on PostgreSQL and on SQLite."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import select

from contract.access import ANONYMOUS, Caller, Scope
from contract.errors import QuotaExceeded
from contract.quotas import Quota
from private_api.loops.janitor import Janitor
from private_api.quotas.limits import NO_LIMITS, Limits
from private_api.quotas.usage import read_usage
from private_api.tables import ArchiveRow, TaskRow
from private_api.tasks.cancel import cancel_task, delete_task
from private_api.tasks.rerun import RerunOptions, rerun_task
from private_api.tasks.submit import check_submission
from tests.integration.task_harness import Harness
from tests.zips import make_zip

ADA = Caller("ada", frozenset({Scope.SUBMIT}))
BOB = Caller("bob", frozenset({Scope.SUBMIT}))
OPERATOR = Caller("carol", frozenset({Scope.OPERATE, Scope.SUBMIT}))
SIZE = len(make_zip({"a.txt": b"hello"}))
HOUR = timedelta(hours=1)
CROWD = 12


def limits(**given: int | None) -> Limits:
    return {**NO_LIMITS, **{Quota(name): limit for name, limit in given.items()}}


def own(caller: Caller, **given: int | None) -> Caller:
    """The caller with a key that has limits of its own."""
    return Caller(caller.owner, caller.scopes, quotas={Quota(name): limit for name, limit in given.items()})


def used(harness: Harness, quota: Quota, owner: str = "ada") -> int:
    with harness.database.read() as session:
        return read_usage(session, owner, quota, harness.database.now(session))


def refused(act: Callable[[], Any]) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught:
        act()
    return caught.value


def files(harness: Harness) -> int:
    with harness.database.read() as session:
        keys = session.scalars(select(ArchiveRow.key).where(ArchiveRow.removed_at.is_(None))).all()
    kept = list(harness.store.kept_keys(-HOUR.total_seconds()))
    assert sorted(kept) == sorted(keys)
    return len(kept)


def test_a_task_more_than_may_wait_is_refused_and_leaves_no_file(harness: Harness) -> None:
    few = limits(queued=2)
    first = harness.submit(caller=ADA, defaults=few)
    harness.submit(caller=ADA, defaults=few)
    error = refused(lambda: harness.submit(caller=ADA, defaults=few))
    assert error.fields == {"quota": "queued", "limit": 2, "used": 2}
    assert error.detail.startswith("quota queued: 2 of 2 tasks wait; ")
    assert error.retry_after_s is None
    assert files(harness) == 2
    # It is the owner's: others, and who shows no key, have nothing to do with it.
    harness.submit(caller=BOB, defaults=few)
    for _ in range(3):
        harness.submit(caller=ANONYMOUS, defaults=few)
    # One that began, or was cancelled, waits no more.
    harness.claim(uid=first)
    second = harness.submit(caller=ADA, defaults=few)
    refused(lambda: harness.submit(caller=ADA, defaults=few))
    cancel_task(harness.database, second, ADA)
    harness.submit(caller=ADA, defaults=few)


@pytest.mark.parametrize("quota", ["queued", "stored", "daily"])
def test_of_a_crowd_exactly_as_many_are_accepted_as_the_quota_allows(harness: Harness, quota: str) -> None:
    room = limits(**{quota: 3 if quota == "queued" else 3 * SIZE})
    start = Barrier(CROWD)

    def submit(_: int) -> str | None:
        start.wait()
        try:
            return harness.submit(caller=ADA, defaults=room)
        except QuotaExceeded:
            return None

    with ThreadPoolExecutor(CROWD) as crowd:
        accepted = [uid for uid in crowd.map(submit, range(CROWD)) if uid]
    assert len(accepted) == 3
    assert used(harness, Quota.QUEUED) == 3
    assert files(harness) == 3


def test_of_a_crowd_that_repeats_one_submission_at_the_quota_everybody_gets_its_uid(harness: Harness) -> None:
    start = Barrier(CROWD)

    def submit(_: int) -> str:
        start.wait()
        return harness.submit(caller=ADA, defaults=limits(queued=1), key="once")

    with ThreadPoolExecutor(CROWD) as crowd:
        assert len(set(crowd.map(submit, range(CROWD)))) == 1
    assert files(harness) == 1


def test_a_repeated_submission_answers_as_before_at_the_quota(harness: Harness) -> None:
    full = limits(queued=1, stored=SIZE, daily=SIZE)
    uid = harness.submit(caller=ADA, defaults=full, key="mine")
    check_submission(harness.database, "echo", idempotency_key="mine", caller=ADA, defaults=full)
    assert harness.submit(caller=ADA, defaults=full, key="mine") == uid
    for key in ("another", None):
        refused(
            lambda key=key: check_submission(  # type: ignore[misc]
                harness.database, "echo", idempotency_key=key, caller=ADA, defaults=full
            )
        )
        refused(lambda key=key: harness.submit(caller=ADA, defaults=full, key=key))  # type: ignore[misc]


def test_what_is_refused_anyway_is_refused_before_its_body_is_read(harness: Harness) -> None:
    def check(size_bytes: int, **room: int) -> None:
        check_submission(
            harness.database,
            "echo",
            idempotency_key=None,
            caller=ADA,
            defaults=limits(**room),
            size_bytes=size_bytes,
        )

    check(1000, stored=1000, daily=1000, queued=1)
    assert refused(lambda: check(1001, stored=1000)).fields["quota"] == "stored"
    assert refused(lambda: check(1001, daily=1000)).fields["quota"] == "daily"
    harness.submit(caller=ADA)
    assert refused(lambda: check(1, queued=1)).fields["quota"] == "queued"
    assert refused(lambda: check(1, stored=SIZE)).fields == {"quota": "stored", "limit": SIZE, "used": SIZE}


def test_inputs_and_outputs_are_stored_until_their_files_are_removed(harness: Harness) -> None:
    uid = harness.submit(caller=ADA)
    harness.commit(harness.claim(uid=uid))
    output = harness.row(uid).output_id
    assert output is not None
    with harness.database.read() as session:
        whole = SIZE + session.get_one(ArchiveRow, output).size_bytes
    assert used(harness, Quota.STORED) == whole
    harness.submit(caller=BOB)
    harness.submit(caller=ANONYMOUS)
    error = refused(lambda: harness.submit(caller=ADA, defaults=limits(stored=whole + SIZE - 1)))
    assert error.fields == {"quota": "stored", "limit": whole + SIZE - 1, "used": whole}
    assert f"{whole} bytes of {whole + SIZE - 1} bytes are stored, and this input has {SIZE} bytes" in error.detail
    assert error.retry_after_s is None
    delete_task(harness.database, uid, ADA)
    Janitor(harness.database, harness.store, harness.logs, keep_finished_for=timedelta(days=30)).step()
    assert used(harness, Quota.STORED) == 0
    harness.submit(caller=ADA, defaults=limits(stored=SIZE))


def test_a_day_is_the_last_24_hours_and_the_answer_says_when_there_is_room(harness: Harness) -> None:
    room = limits(daily=3 * SIZE)
    uids = [harness.submit(caller=ADA, defaults=room) for _ in range(3)]
    # What was deleted was uploaded all the same.
    delete_task(harness.database, uids[2], ADA)
    for uid, hours in zip(uids, (20, 10, 5), strict=True):
        harness.shift(uid, created_at=-hours * HOUR)
    error = refused(lambda: harness.submit(caller=ADA, defaults=room))
    assert error.fields == {"quota": "daily", "limit": 3 * SIZE, "used": 3 * SIZE}
    assert error.retry_after_s is not None
    assert 3 * 3600 < error.retry_after_s <= 4 * 3600
    said = f"{3 * SIZE} bytes of {3 * SIZE} bytes were uploaded in the last 24 hours, and this input has {SIZE} bytes"
    assert f"quota daily: {said}; there is room for it in 4 hours" in error.detail
    two = refused(lambda: harness.submit(caller=ADA, defaults=limits(daily=2 * SIZE)))
    assert two.retry_after_s is not None
    assert 13 * 3600 < two.retry_after_s <= 14 * 3600
    never = refused(lambda: harness.submit(caller=ADA, defaults=limits(daily=SIZE - 1)))
    assert never.retry_after_s is None
    assert "this input alone has" in never.detail
    harness.shift(uids[0], created_at=-4 * HOUR)
    harness.submit(caller=ADA, defaults=room)


def rerun(harness: Harness, uid: str, caller: Caller, room: Limits, key: str | None = None) -> str:
    return rerun_task(harness.database, harness.store, uid, caller, RerunOptions(idempotency_key=key), defaults=room)


def test_a_rerun_counts_as_a_submission_that_uploads_nothing(harness: Harness) -> None:
    first = harness.submit(caller=ADA)
    assert used(harness, Quota.DAILY) == SIZE
    second = rerun(harness, first, ADA, limits(queued=2, stored=2 * SIZE, daily=SIZE), key="again")
    assert (used(harness, Quota.DAILY), used(harness, Quota.STORED)) == (SIZE, 2 * SIZE)
    for room in (limits(queued=2), limits(stored=3 * SIZE - 1)):
        refused(lambda room=room: rerun(harness, first, ADA, room))  # type: ignore[misc]
        assert rerun(harness, first, ADA, room, key="again") == second
    assert files(harness) == 2


def test_a_rerun_by_an_operator_counts_for_the_owner_and_not_by_the_operators_own_limits(harness: Harness) -> None:
    first = harness.submit(caller=own(ADA, running=1))
    wide = own(OPERATOR, queued=None, running=None)
    refused(lambda: rerun(harness, first, wide, limits(queued=1)))
    again = rerun(harness, first, own(OPERATOR, queued=1), limits(queued=2))
    assert harness.row(again).owner == "ada"
    assert harness.row(again).running_limit == 1


def test_a_keys_own_limit_counts_all_that_its_owner_has_narrower_or_wider_than_the_servers(harness: Harness) -> None:
    room = limits(queued=2)
    harness.submit(caller=own(ADA, queued=1), defaults=room)
    refused(lambda: harness.submit(caller=own(ADA, queued=1), defaults=room))
    harness.submit(caller=ADA, defaults=room)
    refused(lambda: harness.submit(caller=ADA, defaults=room))
    harness.submit(caller=own(ADA, queued=3), defaults=room)
    refused(lambda: harness.submit(caller=own(ADA, queued=3), defaults=room))
    harness.submit(caller=own(ADA, queued=None), defaults=room)


def test_without_limits_nothing_is_counted_or_refused(harness: Harness) -> None:
    for _ in range(3):
        harness.submit(caller=ADA)
    with harness.database.read() as session:
        assert set(session.scalars(select(TaskRow.running_limit))) == {None}
