"""What the reaper does to tasks whose time is up, each in a transaction of its own: one bad row stops no other."""

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from contract.statuses import HELD, Reason, Status
from private_api.database import Database
from private_api.tables import ConsumerRow, TaskRow
from private_api.tasks.limits import DEADLINE_GRACE, LEASE, MAX_CRASHES
from private_api.tasks.rows import end_task, lock_task, logger, requeue_task

_PAGE = 100


def extend_leases(database: Database) -> int:
    """Give every holder a fresh lease, because it could not beat while the server was away. Returns how many."""
    with database.write() as session:
        now = database.now(session)
        statement = update(TaskRow).where(TaskRow.status.in_(HELD)).values(lease_until=now + LEASE)
        return len(session.execute(statement.returning(TaskRow.id)).all())


def expire_leases(database: Database) -> list[str]:
    """Requeue every held task whose lease ended; one that crashed its consumers too often fails. Returns the uids."""

    def expire(session: Session, row: TaskRow, now: datetime) -> None:
        if row.lease_until is None or row.lease_until >= now:
            return
        row.crashes += 1
        owner = row.lease_owner
        if row.cancel_at is not None:
            end_task(session, row, Status.CANCELLED, now, reason=Reason.CANCELLED, detail="cancelled by its owner")
        elif row.crashes >= MAX_CRASHES:
            detail = (
                f"{row.crashes} consumers in a row stopped answering while they ran this task; the last was {owner}"
            )
            end_task(session, row, Status.FAILED, now, reason=Reason.CRASHED_REPEATEDLY, detail=detail)
        else:
            # The fence stays: the holder may come back as long as nobody else has claimed, to the deadline it had.
            row.detail = f"consumer {owner} stopped answering"
            phase, deadline = row.phase, row.deadline_at
            requeue_task(session, row, now)
            row.phase, row.deadline_at = phase, deadline

    return _each(database, lambda now: (TaskRow.lease_until < now) & TaskRow.status.in_(HELD), expire)


def end_overdue(database: Database) -> list[str]:
    """Fail every attempt that is past the deadline of its phase. Returns the uids."""

    def end(session: Session, row: TaskRow, now: datetime) -> None:
        if not Status(row.status).is_held or row.deadline_at is None:
            return
        if row.deadline_at >= now - DEADLINE_GRACE:
            return
        detail = f"the attempt was still {row.phase or row.status} at its deadline; the server ended it"
        # The fence moves, so that the holder's next heartbeat tells it to stop.
        row.fence += 1
        end_task(session, row, Status.FAILED, now, reason=Reason.TIME_LIMIT, detail=detail)

    return _each(database, lambda now: (TaskRow.deadline_at < now - DEADLINE_GRACE) & TaskRow.status.in_(HELD), end)


def fail_unschedulable(database: Database, patience: timedelta) -> list[str]:
    """Fail tasks that waited longer than `patience`, in which nobody who could run them was seen. Returns the uids."""
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
        waiting = TaskRow.created_at < now - patience
        return waiting & (TaskRow.status == Status.QUEUED) & or_(*(TaskRow.use_gpu.is_(kind) for kind in stranded))

    return _each(database, condition, end)


def _each(
    database: Database,
    condition: Callable[[datetime], ColumnElement[bool]],
    act: Callable[[Session, TaskRow, datetime], None],
) -> list[str]:
    """Call `act` on each live task that meets `condition`, locked and read anew. Keyset pages: none is starved."""
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
                logger.exception("task=%s could not be expired; others go on", uid)
            else:
                done.append(uid)
        if len(page) < _PAGE:
            return done
