"""What the rules share: finding and locking a task, checking a fence, moving and ending a task or an attempt."""

import logging
from datetime import datetime

from sqlalchemy import ColumnElement, case, insert, or_, select, true, update
from sqlalchemy.orm import Session, lazyload, load_only
from sqlalchemy.sql.base import ExecutableOption

from contract.access import Caller, Scope
from contract.broker import queue_for
from contract.errors import StaleFence, TaskNotFound
from contract.statuses import TRANSITIONS, Reason, Status
from kit.logging import log_task
from private_api.database import Database
from private_api.quotas.running import next_held_back
from private_api.round_trips import LATER, add_later
from private_api.tables import AttemptRow, OutboxRow, Outcome, TaskRow

logger = logging.getLogger("private_api.tasks")


def is_open_to(caller: Caller) -> ColumnElement[bool]:
    """The condition that a task exists for this caller: another owner's task looks like no task at all."""
    if caller.may(Scope.OPERATE):
        return true()
    return or_(TaskRow.owner.is_(None), TaskRow.owner == caller.owner)


def sees(caller: Caller, owner: str | None) -> bool:
    """Whether a task of this owner exists for the caller: what `is_open_to` says, of a row in hand."""
    return owner in (None, caller.owner) or caller.may(Scope.OPERATE)


def may_read(caller: Caller, owner: str | None) -> bool:
    """Whether the caller, who sees a task of this owner, may read its files and what may name them.

    The scope operate shows facts; what a task holds is for its owner's keys and the scope admin.
    """
    return owner in (None, caller.owner) or caller.may(Scope.ADMIN)


def find_task(session: Session, uid: str, caller: Caller) -> TaskRow:
    """The task, unless it was deleted or is another owner's. Raises `TaskNotFound`."""
    statement = select(TaskRow).where(TaskRow.uid == uid, is_open_to(caller), TaskRow.deleted_at.is_(None))
    row = session.scalars(statement).one_or_none()
    if row is None:
        raise TaskNotFound
    return row


HOLDER_ALONE = (load_only(TaskRow.status, TaskRow.fence, TaskRow.cancel_at), lazyload(TaskRow.model_version))
"""To read no more of a task than what `check_fence` looks at, and whether its owner asked for its end."""


def read_task(session: Session, uid: str, *options: ExecutableOption) -> TaskRow:
    """The task, deleted or not, without a lock. Raises `TaskNotFound`."""
    row = session.scalars(select(TaskRow).where(TaskRow.uid == uid).options(*options)).one_or_none()
    if row is None:
        raise TaskNotFound
    return row


def read_held_task(session: Session, uid: str, fence: int, *options: ExecutableOption) -> TaskRow:
    """The task if this attempt holds it, without a lock. Raises `TaskNotFound`, `StaleFence`."""
    row = read_task(session, uid, *options)
    check_fence(row, fence)
    return row


def lock_task(session: Session, uid: str, caller: Caller | None = None) -> TaskRow:
    """The task, deleted or not, locked until the transaction ends.

    Raises `TaskNotFound`, also for a caller to whom the task is not open.
    """
    statement = select(TaskRow).where(TaskRow.uid == uid, is_open_to(caller) if caller else true())
    row = session.scalars(statement.with_for_update(of=TaskRow)).one_or_none()
    if row is None:
        raise TaskNotFound
    return row


def lock_task_now(
    database: Database, session: Session, uid: str, *options: ExecutableOption
) -> tuple[TaskRow, datetime]:
    """The same, and the time. Raises `TaskNotFound`."""
    statement = select(TaskRow, database.clock()).where(TaskRow.uid == uid).options(*options)
    found = session.execute(statement.with_for_update(of=TaskRow)).one_or_none()
    if found is None:
        raise TaskNotFound
    row, now = found
    return row, database.told(now)


def check_fence(row: TaskRow, fence: int) -> None:
    """Raises `StaleFence` unless `fence` is that of the task's last claim and the task has not ended."""
    if fence <= 0 or row.fence != fence or row.status.is_terminal:
        raise StaleFence(f"fence {fence} no longer holds this task: it is {row.status} under fence {row.fence}")


def note_return(row: TaskRow) -> None:
    """Take the crash back from a holder whose lease expired, and who comes back under its fence all the same."""
    if row.status == Status.QUEUED:
        row.crashes -= 1


def move_task(row: TaskRow, status: Status) -> None:
    """Change the status of a stored task, and log it. Only a claim does so elsewhere, in its own statement."""
    old = row.status
    if status is not old and status not in TRANSITIONS[old]:
        raise AssertionError(f"task {row.uid} cannot go from {old} to {status}")
    row.status = status
    if not status.is_held:
        row.lease_owner = row.lease_until = None
    if status is not old:
        log_task(logger, row.uid).info("%s -> %s fence=%s%s", old, status, row.fence, _why(row))


def end_task(
    session: Session, row: TaskRow, status: Status, now: datetime, *, reason: Reason | None = None, detail: str = ""
) -> None:
    """Make the task terminal, and its open attempt with it."""
    was_held = row.status.is_held
    row.ended_at = now
    row.reason = reason
    row.detail = detail or None
    row.phase = row.deadline_at = row.pull_percent = row.progress = row.progress_text = None
    move_task(row, status)
    end_attempts(session, row, now, outcome=reason or Outcome.FINISHED, detail=detail)
    # Its bell may have rung while the owner's quota held it back.
    if was_held and row.owner is not None:
        session.flush()
        uid, use_gpu, due_at = (held_back := next_held_back(row.owner).subquery()).c
        queue = case((use_gpu, queue_for(use_gpu=True)), else_=queue_for(use_gpu=False))
        bells = insert(OutboxRow).from_select(
            ["queue", "uid", "due_at"], select(queue, uid, due_at).select_from(held_back)
        )
        session.execute(bells.inline(), execution_options=LATER)


def end_cancelled(session: Session, row: TaskRow, now: datetime) -> None:
    """End a task because its owner asked for it."""
    end_task(session, row, Status.CANCELLED, now, reason=Reason.CANCELLED, detail="cancelled by its owner")


def end_attempts(session: Session, row: TaskRow, now: datetime, *, outcome: Outcome | Reason, detail: str = "") -> None:
    """End the task's open attempt, if it has one."""
    session.execute(
        update(AttemptRow)
        .where(AttemptRow.task_id == row.id, AttemptRow.ended_at.is_(None))
        .values(ended_at=now, outcome=outcome, detail=detail or None, image=row.image)
        .execution_options(synchronize_session=False)
    )


def requeue_task(session: Session, row: TaskRow, due_at: datetime) -> None:
    """Let a new attempt begin from `due_at` on: the last one cannot come back."""
    row.phase = row.deadline_at = None
    return_to_queue(session, row, due_at)


def return_to_queue(session: Session, row: TaskRow, due_at: datetime) -> None:
    """Let the task be claimed from `due_at` on, and ring its bell then.

    Phase and deadline stay as they are, for the holder that may come back to them.
    """
    row.not_before = due_at
    move_task(row, Status.QUEUED)
    ring(session, row)


def ring(session: Session, row: TaskRow) -> None:
    """Add the bell of a queued task to the outbox."""
    add_later(session, OutboxRow(queue=queue_for(row.use_gpu), uid=row.uid, due_at=row.not_before))


def _why(row: TaskRow) -> str:
    return f" reason={row.reason}" if row.reason else ""
