"""The database's clock jumps: nothing that waits, runs or is kept notices."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select, text

from contract.statuses import Phase, Status
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.leases import LEASE
from private_api.loops.clock import TOLERANCE, look_at_clock
from private_api.loops.janitor import Janitor
from private_api.server_tables import ClockJumpRow
from private_api.tables import ConsumerRow, OutboxRow
from private_api.task_logs import TaskLogs
from private_api.tasks.limits import phase_limit
from tests.integration.task_harness import Harness, SetClock
from tests.waiting import wait_until

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
KEPT = 30 * DAY
CLOSE = timedelta(minutes=5)
"""Longer than a test takes on any machine."""


@pytest.fixture
def database(database_url: str) -> Iterator[SetClock]:
    """In place of the database whose clock runs by itself."""
    database = SetClock(database_url)
    yield database
    database.close()


def jump(harness: Harness, by: timedelta) -> None:
    """The clock is set while the server runs."""
    look_at_clock(harness.database)
    assert isinstance(harness.database, SetClock)
    harness.database.offset += by


def clean(harness: Harness) -> int:
    return Janitor(harness.database, harness.store, harness.logs, keep_finished_for=KEPT).step()


def jumps(database: Database) -> list[float]:
    with database.read() as session:
        return list(session.scalars(select(ClockJumpRow.by_s).order_by(ClockJumpRow.id)))


@pytest.mark.parametrize("by", [timedelta(minutes=3), DAY, -DAY, 20 * KEPT, -20 * KEPT], ids=str)
def test_a_jump_ends_nothing_strands_nothing_and_expires_nothing(harness: Harness, by: timedelta) -> None:
    harness.register("short", time_limit_s=20)
    finished, held = harness.submit_and_claim(), harness.claim(uid=harness.submit("short"))
    harness.commit(finished)
    harness.beat(held)
    waiting, paused = harness.submit(), harness.submit()
    harness.release(harness.claim(uid=paused))
    before = harness.now()
    pause = harness.row(paused).not_before - before
    harness.reap()
    jump(harness, by)
    # Whichever loop looks first.
    assert clean(harness) == 0
    assert harness.reap() == []
    now = harness.now()
    assert abs(now - before - by) < CLOSE
    row = harness.row(held.uid)
    assert (row.status, row.crashes) == (Status.RUNNING, 0)
    assert row.deadline_at is not None
    assert row.lease_until is not None
    assert timedelta(seconds=20) - CLOSE < row.deadline_at - now <= timedelta(seconds=20) + TOLERANCE
    assert LEASE - CLOSE < row.lease_until - now <= LEASE
    assert harness.row(paused).not_before - now <= pause + TOLERANCE
    with harness.database.read() as session:
        assert abs(session.get_one(ConsumerRow, "ada").seen_at - now) < CLOSE
        assert all(due_at <= now + pause + TOLERANCE for due_at in session.scalars(select(OutboxRow.due_at)))
    assert harness.claim().uid == waiting
    assert harness.commit(held).status is Status.FINISHED
    assert harness.reap(patience=HOUR) == []
    assert jumps(harness.database) == [pytest.approx(by.total_seconds(), abs=TOLERANCE.total_seconds())]


@pytest.mark.parametrize("by", [DAY, -DAY], ids=str)
def test_what_was_written_after_the_jump_waits_and_ends_as_if_there_was_none(harness: Harness, by: timedelta) -> None:
    jump(harness, by)
    waiting, held = harness.submit(), harness.claim(uid=harness.submit())
    harness.reap()
    deadline, now = harness.row(held.uid).deadline_at, harness.now()
    assert deadline is not None
    # Later does no harm: its holder keeps the time, too.
    assert deadline - now > phase_limit(Phase.PREPARING, 0) - CLOSE
    assert harness.claim().uid == waiting
    assert harness.reap() == []


def test_retention_counts_the_time_that_passed_and_not_what_the_clock_was_set_by(harness: Harness) -> None:
    first = harness.submit_and_claim()
    harness.commit(first)
    jump(harness, 10 * KEPT)
    assert clean(harness) == 0
    second = harness.submit_and_claim()
    harness.commit(second)
    jump(harness, -10 * KEPT)
    third = harness.submit_and_claim()
    harness.commit(third)
    assert clean(harness) == 0
    # While the server is off, time passes.
    for passed, removed in ((KEPT - DAY, 0), (2 * DAY, 6)):
        harness.database.last_look = None
        assert isinstance(harness.database, SetClock)
        harness.database.offset += passed
        assert clean(harness) == removed


def test_of_two_processes_one_moves_what_waits(harness: Harness) -> None:
    other = SetClock(harness.database.url)
    try:
        look_at_clock(other)
        held = harness.submit_and_claim()
        deadline = harness.row(held.uid).deadline_at
        jump(harness, HOUR)
        other.offset = HOUR
        for database in (harness.database, other, other, harness.database):
            look_at_clock(database)
        moved = harness.row(held.uid).deadline_at
        assert deadline is not None
        assert moved is not None
        assert abs(moved - deadline - HOUR) <= TOLERANCE
        assert len(jumps(other)) == 1
    finally:
        other.close()


def test_a_clock_that_went_back_while_the_server_was_off_strands_nothing(harness: Harness) -> None:
    harness.reap()
    uid = harness.submit()
    jump(harness, -HOUR)
    harness.database.last_look = None
    harness.reap()
    # Nobody knows how long ago the clock was set, so what came after the last heartbeat waits for as long again.
    wait_until(lambda: (claimed := harness.try_claim()) and claimed.uid == uid, "the task is due")


def test_a_clock_that_is_set_by_a_moment_moves_nothing(harness: Harness) -> None:
    jump(harness, TOLERANCE / 2)
    harness.reap()
    assert jumps(harness.database) == []


def test_it_is_postgresql_s_own_clock(postgres_url: str, store: ArchiveStore, logs: TaskLogs) -> None:
    # Found before the function of the same name that PostgreSQL has.
    database = Database(f"{postgres_url}%20-csearch_path%3Dpublic,pg_catalog")
    clock = "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
    try:
        harness = Harness(database, store, logs)
        harness.register(time_limit_s=20)
        held, waiting = harness.submit_and_claim(), harness.submit()
        harness.beat(held)
        for hours in (0, 30, -30):
            with database.engine.begin() as connection:
                body = f"$$ SELECT pg_catalog.clock_timestamp() + interval '{hours} h' $$"
                connection.execute(text(clock.replace("CREATE", "CREATE OR REPLACE") + body))
            assert harness.reap() == []
        assert [round(by / 3600) for by in jumps(database)] == [30, -60]
        assert harness.beat(held).seconds_left > 0
        assert harness.claim().uid == waiting
    finally:
        database.close()
