"""What the rules share: finding and locking a task, checking a fence, ending a task or an attempt."""

import logging
from datetime import datetime

from sqlalchemy import ColumnElement, or_, select, true, update
from sqlalchemy.orm import Session

from contract.access import Scope
from contract.broker import queue_for
from contract.errors import StaleFence, TaskNotFound
from contract.logging import log_task
from contract.statuses import TRANSITIONS, Reason, Status
from private_api.callers import Caller
from private_api.tables import AttemptRow, OutboxRow, TaskRow

logger = logging.getLogger("private_api.tasks")


def is_open_to(caller: Caller) -> ColumnElement[bool]:
    """Which tasks exist for this caller: part of every query for one, so that another's cannot be told from none."""
    if caller.may(Scope.OPERATE):
        return true()
    return or_(TaskRow.owner.is_(None), TaskRow.owner == caller.owner)


def find_task(session: Session, uid: str, caller: Caller) -> TaskRow:
    """The task, unless it was deleted or is somebody else's. Raises `TaskNotFound`."""
    statement = select(TaskRow).where(TaskRow.uid == uid, is_open_to(caller), TaskRow.deleted_at.is_(None))
    row = session.scalars(statement).one_or_none()
    if row is None:
        raise TaskNotFound
    return row


def read_task(session: Session, uid: str) -> TaskRow:
    """The task, deleted or not, without a lock. Raises `TaskNotFound`."""
    row = session.scalars(select(TaskRow).where(TaskRow.uid == uid)).one_or_none()
    if row is None:
        raise TaskNotFound
    return row


def read_held_task(session: Session, uid: str, fence: int) -> TaskRow:
    """The task, as long as this attempt holds it, without a lock. Raises `TaskNotFound`, `StaleFence`."""
    row = read_task(session, uid)
    check_fence(row, fence)
    return row


def lock_task(session: Session, uid: str, caller: Caller | None = None) -> TaskRow:
    """The task, deleted or not, locked until the transaction ends; for a caller, unless it is somebody else's.

    Raises `TaskNotFound`.
    """
    statement = select(TaskRow).where(TaskRow.uid == uid, is_open_to(caller) if caller else true())
    row = session.scalars(statement.with_for_update(of=TaskRow)).one_or_none()
    if row is None:
        raise TaskNotFound
    return row


def check_fence(row: TaskRow, fence: int) -> None:
    """Raises `StaleFence` unless `fence` is that of the task's last claim and nobody ended or took it since."""
    if fence <= 0 or row.fence != fence or Status(row.status).is_terminal:
        raise StaleFence(f"fence {fence} no longer holds this task: it is {row.status} under fence {row.fence}")


def move_task(row: TaskRow, status: Status) -> None:
    """Change the status, and log it: the only place where either happens to a stored task."""
    old = Status(row.status)
    if status is not old and status not in TRANSITIONS[old]:
        raise AssertionError(f"task {row.uid} cannot go from {old} to {status}")
    row.status = status
    if not status.is_held:
        row.lease_owner = row.lease_until = None
        row.phase = None
    if status is not old:
        log_task(logger, row.uid).info("%s -> %s fence=%s%s", old, status, row.fence, _why(row))


def end_task(
    session: Session, row: TaskRow, status: Status, now: datetime, *, reason: Reason | None = None, detail: str = ""
) -> None:
    """Make the task terminal and close its open attempt."""
    row.ended_at = now
    row.reason = reason
    row.detail = detail or None
    row.deadline_at = None
    move_task(row, status)
    end_attempts(session, row, now, outcome=reason or status, detail=detail)


def end_attempts(session: Session, row: TaskRow, now: datetime, *, outcome: str, detail: str = "") -> None:
    """Write the end of the task's open attempt, if there is one."""
    session.execute(
        update(AttemptRow)
        .where(AttemptRow.task_id == row.id, AttemptRow.ended_at.is_(None))
        .values(ended_at=now, outcome=outcome, detail=detail or None)
    )


def requeue_task(session: Session, row: TaskRow, due_at: datetime) -> None:
    """Let the task be claimed again from `due_at` on, and ring for it then."""
    row.not_before = due_at
    row.deadline_at = None
    move_task(row, Status.QUEUED)
    ring(session, row)


def ring(session: Session, row: TaskRow) -> None:
    """Add the bell of a queued task to the outbox."""
    session.add(OutboxRow(queue=queue_for(row.use_gpu), uid=row.uid, due_at=row.not_before))


def _why(row: TaskRow) -> str:
    return f" reason={row.reason}" if row.reason else ""
