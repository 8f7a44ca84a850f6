"""Jumps of the database's clock: noticed by this process's own clock, and taken out of everything that waits.

Every loop that judges stored times looks at the clock first. Whatever is compared with the clock is in `_moved`, except
for what a person means by the calendar (when a key expires) and what only shows (when a task was created).
"""

import logging
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import ColumnElement, DateTime, func, insert, or_, select, true, type_coerce, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from contract.statuses import Phase
from private_api.columns import Base
from private_api.database import Database, Look
from private_api.deployment_tables import DeploymentRow, GatewayRow, ReplicaRow
from private_api.deployments.expire import extend_replica_leases
from private_api.server_tables import ClockJumpRow, HeartbeatRow
from private_api.tables import AttemptRow, ConsumerRow, OutboxRow, TaskRow
from private_api.tasks.expire import extend_leases, lock_deadlines
from private_api.tasks.limits import phase_limit

logger = logging.getLogger(__name__)

TOLERANCE = timedelta(seconds=2)
"""A smaller jump changes nothing that matters: the shortest time that is judged is 2 s."""

_MOVED: tuple[tuple[type[Base], ColumnElement[bool], tuple[InstrumentedAttribute[Any], ...]], ...] = (
    (DeploymentRow, true(), (DeploymentRow.not_before, DeploymentRow.called_at, DeploymentRow.wanted_at)),
    (
        ReplicaRow,
        ReplicaRow.ended_at.is_(None),
        (ReplicaRow.yielded_at, ReplicaRow.created_at, ReplicaRow.ready_at, ReplicaRow.draining_at),
    ),
    (TaskRow, TaskRow.ended_at.is_(None), (TaskRow.not_before,)),
    (OutboxRow, true(), (OutboxRow.due_at,)),
    (AttemptRow, AttemptRow.ended_at.is_(None), (AttemptRow.claimed_at, AttemptRow.begun_at)),
    (ConsumerRow, true(), (ConsumerRow.seen_at,)),
    (GatewayRow, true(), (GatewayRow.seen_at,)),
    (HeartbeatRow, true(), (HeartbeatRow.at,)),
)
"""In the order in which other transactions lock them. Leases, deadlines and ends of drains have rules of their own."""


def look_at_clock(database: Database) -> datetime:
    """The time by the database's clock, once everything that waits was moved along with any jump of it.

    Raises `ServiceUnavailable`. Several processes may look: one of them moves things, for all.
    """
    with database.looking:
        look = _look(database)
        last = database.last_look
        suspected = _jump_at_start(database, look) if last is None else _jump_between(last, look)
        if suspected:
            look = _settle(database, last or look, look, suspected)
        database.last_look = look
        return look.at


def _look(database: Database) -> Look:
    with database.read() as session:
        last_jump = session.scalar(select(func.max(ClockJumpRow.id))) or 0
        before_s = time.monotonic()
        now = database.now(session)
        return Look(now, before_s, time.monotonic(), last_jump)


def _jump_between(last: Look, look: Look) -> timedelta:
    """How far the clock jumped, or nothing within the tolerance; a slow answer is no jump."""
    passed = look.at - last.at
    least = timedelta(seconds=look.before_s - last.after_s)
    most = timedelta(seconds=look.after_s - last.before_s)
    if passed - most > TOLERANCE or passed - least < -TOLERANCE:
        return passed - (least + most) / 2
    return timedelta()


def _jump_at_start(database: Database, look: Look) -> timedelta:
    """How far back the clock went, at least, since an earlier process looked. Forward looks like an absence."""
    with database.read() as session:
        at = session.scalar(select(func.max(HeartbeatRow.at)))
    return look.at - at if at is not None and at - look.at > TOLERANCE else timedelta()


def _settle(database: Database, last: Look, look: Look, suspected: timedelta) -> Look:
    """Move what waits, unless another process did, and note the jump. Both are one transaction."""
    passed = timedelta(seconds=look.after_s - last.before_s)
    since, until = look.at - passed, max(last.at + passed, look.at - suspected)
    # Without a time limit: a queue may be long.
    with database.load() as connection, Session(connection) as session:
        database.serialize(session, "clock")
        noted = select(ClockJumpRow.id, ClockJumpRow.by_s).where(ClockJumpRow.id > last.last_jump)
        jumps = session.execute(noted.order_by(ClockJumpRow.id)).all()
        by = suspected - timedelta(seconds=sum(jump.by_s for jump in jumps))
        if abs(by) <= TOLERANCE:
            return Look(look.at, look.before_s, look.after_s, jumps[-1].id if jumps else last.last_jump)
        logger.warning("the database's clock jumped by %+.1f s; what waits is moved by as much", by.total_seconds())
        _move(database, session, by, since, look.at)
        values = {"until": until, "since": since, "by_s": by.total_seconds()}
        jump = session.execute(insert(ClockJumpRow).values(values).returning(ClockJumpRow.id)).scalar_one()
        return Look(look.at, look.before_s, look.after_s, jump)


def _move(database: Database, session: Session, by: timedelta, since: datetime, now: datetime) -> None:
    """Move what was written before the jump. What may have been written after it stays, or errs to the harmless side.

    A lease begins anew, since nobody can tell. A deadline may be late: its holder keeps it by a clock of its own.
    """

    def is_older(column: InstrumentedAttribute[Any]) -> ColumnElement[bool]:
        # Later than now is from before a jump back; after a jump forward it is a pause that just began.
        return column < since if by > timedelta() else or_(column < since, column > now)

    def moved(column: InstrumentedAttribute[Any]) -> ColumnElement[Any]:
        if database.is_sqlite:
            return func.strftime("%Y-%m-%d %H:%M:%f000", column, f"{by.total_seconds():+.3f} seconds")
        return type_coerce(column, DateTime(timezone=True)) + by

    drains = update(ReplicaRow).where(ReplicaRow.ended_at.is_(None), is_older(ReplicaRow.draining_at))
    session.execute(
        drains.values(drain_until=moved(ReplicaRow.drain_until)), execution_options={"synchronize_session": False}
    )
    for row, waits, columns in _MOVED:
        for column in columns:
            statement = update(row).where(waits, is_older(column)).values({column: moved(column)})
            session.execute(statement, execution_options={"synchronize_session": False})
    extend_replica_leases(session, now)
    extend_leases(session, now)
    for task in lock_deadlines(session):
        limit = phase_limit(task.phase or Phase.PREPARING, task.model_version.time_limit_s)
        if task.deadline_at is not None and (by > timedelta() or not since <= task.deadline_at - limit <= now):
            task.deadline_at += by
    session.flush()


def was_before(
    database: Database, column: InstrumentedAttribute[Any], now: datetime, age: timedelta
) -> ColumnElement[bool]:
    """The condition that something is older than `age`, by a clock that never jumped.

    The rows stay as they were written: ended ones never change. A time that may be from before or from after a jump
    back counts as the later of the two.
    """
    with database.read() as session:
        recent = or_(ClockJumpRow.since > now - age, ClockJumpRow.until > now - age)
        jumps = session.scalars(select(ClockJumpRow).where(recent).order_by(ClockJumpRow.id)).all()
    # The clock ran undisturbed from each `begin` to its `end`, and jumped by `after` in all since then.
    runs, begin, after = [], datetime.min.replace(tzinfo=UTC), sum(jump.by_s for jump in jumps)
    for jump in jumps:
        runs.append((begin, jump.until, after))
        begin, after = jump.since, after - jump.by_s
    runs.append((begin, now, 0.0))
    edges = sorted({edge for begin, end, _ in runs for edge in (begin, end)})
    conditions = []
    for low, high in pairwise(edges):
        later = [after for begin, end, after in runs if begin <= low and high <= end]
        oldest = now - age - timedelta(seconds=max(later, default=max(after for *_, after in runs)))
        conditions.append((column > low) & (column <= high) & (column < oldest))
    return or_(*conditions)
