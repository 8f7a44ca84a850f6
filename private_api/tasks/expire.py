"""What the reaper does to overdue tasks, each in a transaction of its own: one bad row stops no other."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from contract.statuses import HELD, Reason, Status
from private_api.database import Database
from private_api.leases import LEASE
from private_api.tables import ConsumerRow, Outcome, TaskRow
from private_api.tasks.ahead import is_prepared_ahead, take_from_holder
from private_api.tasks.blame import ends_task
from private_api.tasks.limits import DEADLINE_GRACE, MAX_CRASHES
from private_api.tasks.rows import end_cancelled, end_task, lock_task, logger, return_to_queue

_PAGE = 100


def extend_leases(session: Session, now: datetime) -> int:
    """Renew every task's lease, because nobody can tell which ones expired. Returns how many."""
    statement = update(TaskRow).where(TaskRow.status.in_(HELD)).values(lease_until=now + LEASE)
    return len(session.execute(statement.returning(TaskRow.id)).all())


def extend_deadlines(session: Session, by: timedelta) -> None:
    """Give every attempt the time back in which its holder could report no next phase and no end."""
    for row in lock_deadlines(session):
        if row.deadline_at is not None:
            row.deadline_at += by


def lock_deadlines(session: Session) -> Sequence[TaskRow]:
    """The tasks that have a deadline, also those whose holder may yet come back to it, locked."""
    statement = select(TaskRow).where(TaskRow.ended_at.is_(None), TaskRow.deadline_at.is_not(None))
    return session.scalars(statement.order_by(TaskRow.id).with_for_update(of=TaskRow)).all()


def expire_leases(database: Database) -> list[str]:
    """Requeue held tasks whose lease has expired; fail those that crashed too many consumers. Returns the uids."""

    def expire(session: Session, row: TaskRow, now: datetime) -> None:
        if row.lease_until is None or row.lease_until >= now:
            return
        if is_prepared_ahead(session, row):
            # It has not begun, so it cannot be what ended its consumer.
            take_from_holder(session, row, now, f"consumer {row.lease_owner} stopped answering")
            return
        row.crashes += 1
        owner = row.lease_owner
        if row.cancel_at is not None:
            end_cancelled(session, row, now)
        elif ends_task(session, row, now, failures=row.crashes, limit=MAX_CRASHES, outcome=Outcome.LOST):
            detail = f"{row.crashes} times its consumer stopped answering; the last one was {owner}"
            end_task(session, row, Status.FAILED, now, reason=Reason.CRASHED_REPEATEDLY, detail=detail)
        else:
            # The fence stays, so the holder may come back until somebody else claims the task.
            row.detail = f"consumer {owner} stopped answering"
            return_to_queue(session, row, now)

    return _each(database, lambda now: (TaskRow.lease_until < now) & TaskRow.status.in_(HELD), expire)


def end_overdue(database: Database) -> list[str]:
    """Fail every attempt that is past the deadline of its phase. Returns the uids."""

    def end(session: Session, row: TaskRow, now: datetime) -> None:
        if not row.status.is_held or row.deadline_at is None:
            return
        if row.deadline_at >= now - DEADLINE_GRACE:
            return
        detail = f"the attempt was still {row.phase or row.status} at its deadline; the server ended it"
        # The fence moves, so that the holder's next heartbeat is refused and it stops.
        row.fence += 1
        end_task(session, row, Status.FAILED, now, reason=Reason.TIME_LIMIT, detail=detail)

    return _each(database, lambda now: (TaskRow.deadline_at < now - DEADLINE_GRACE) & TaskRow.status.in_(HELD), end)


def fail_unschedulable(database: Database, patience: timedelta) -> list[str]:
    """Fail tasks that waited for `patience` while no consumer that could run them was seen. Returns the uids."""
    with database.read() as session:
        now = database.now(session)
        seen = ConsumerRow.seen_at > now - patience
        can_gpu = session.scalar(select(func.count()).where(seen, ConsumerRow.gpu_uuid.is_not(None)))
        can_cpu = session.scalar(select(func.count()).where(seen, ConsumerRow.accepts_cpu_tasks))
    stranded = ([] if can_gpu else [True]) + ([] if can_cpu else [False])
    if not stranded:
        return []

    def end(session: Session, row: TaskRow, now: datetime) -> None:
        if row.status != Status.QUEUED:
            return
        need = "with a GPU" if row.use_gpu else "for CPU tasks"
        detail = f"no consumer {need} has asked for work in {patience}; check that one runs"
        end_task(session, row, Status.FAILED, now, reason=Reason.NO_CAPABLE_CONSUMER, detail=detail)

    def condition(now: datetime) -> ColumnElement[bool]:
        # Due for so long: the moment of its submission is not moved with the clock.
        waiting = TaskRow.not_before < now - patience
        return waiting & (TaskRow.status == Status.QUEUED) & or_(*(TaskRow.use_gpu.is_(kind) for kind in stranded))

    return _each(database, condition, end)


def _each(
    database: Database,
    condition: Callable[[datetime], ColumnElement[bool]],
    act: Callable[[Session, TaskRow, datetime], None],
) -> list[str]:
    """Lock, read again and pass to `act` each live task that meets `condition`. Keyset pages starve none."""
    done: list[str] = []
    last = 0
    while True:
        with database.read() as session:
            statement = select(TaskRow.id, TaskRow.uid).where(
                condition(database.now(session)), TaskRow.ended_at.is_(None), TaskRow.id > last
            )
            page = session.execute(statement.order_by(TaskRow.id).limit(_PAGE)).all()
        for last, uid in page:  # noqa: B007 - the last id is where the next page begins
            try:
                with database.write() as session:
                    act(session, lock_task(session, uid), database.now(session))
            except Exception:
                logger.exception("task=%s could not be expired; continuing with the others", uid)
            else:
                done.append(uid)
        if len(page) < _PAGE:
            return done
