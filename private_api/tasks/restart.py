"""How tasks go on after a restore: whoever held them then may still run, and must not win."""

from collections.abc import Callable

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from contract.statuses import Reason, Status
from private_api.database import Database
from private_api.tables import OutboxRow, TaskRow
from private_api.tasks.rows import end_task, requeue_task

FENCE_JUMP = 1_000_000
"""Added to a task's fence: more than it can have risen between the backup and the loss of the server."""
_PAGE = 100


def restart_tasks(database: Database, session: Session, has_input: Callable[[str], bool]) -> int:
    """Queue every task that has not ended under a fence nobody was ever given; returns how many.

    One whose owner asked for its end is cancelled instead, and one whose input's key is not stored fails. Runs in the
    caller's transaction.
    """
    # Every bell is rung anew below.
    session.execute(delete(OutboxRow))
    restarted = last = 0
    while True:
        statement = select(TaskRow).where(TaskRow.ended_at.is_(None), TaskRow.id > last)
        page = session.scalars(statement.order_by(TaskRow.id).limit(_PAGE)).all()
        for row in page:
            last = row.id
            row.fence += FENCE_JUMP
            _restart(database, session, row, has_input)
            restarted += row.status == Status.QUEUED
        session.flush()
        session.expunge_all()
        if len(page) < _PAGE:
            return restarted


def _restart(database: Database, session: Session, row: TaskRow, has_input: Callable[[str], bool]) -> None:
    now = database.now(session)
    if row.cancel_at is not None:
        end_task(session, row, Status.CANCELLED, now, reason=Reason.CANCELLED, detail="cancelled by its owner")
    elif not has_input(row.input.key):
        detail = "the server was restored from a backup that does not hold this task's input; submit it again"
        end_task(session, row, Status.FAILED, now, reason=Reason.INFRASTRUCTURE, detail=detail)
    else:
        row.detail = "the server was restored from a backup"
        requeue_task(session, row, now)
