"""Requeues tasks after a restore: their earlier holders may still run, and must not win."""

from collections.abc import Callable

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from contract.statuses import Reason, Status
from private_api.database import Database
from private_api.leases import FENCE_JUMP
from private_api.tables import OutboxRow, TaskRow
from private_api.tasks.rows import end_cancelled, end_task, requeue_task

_PAGE = 100


def restart_tasks(database: Database, session: Session, has_input: Callable[[str], bool]) -> int:
    """Queue every task that has not ended, under a fence that nobody was ever given. Returns how many.

    A task whose owner asked to cancel it is cancelled instead, and one whose input is missing fails. Runs in the
    caller's transaction.
    """
    # Every bell is added again below.
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
        end_cancelled(session, row, now)
    elif not has_input(row.input.key):
        detail = "the server was restored from a backup that does not hold this task's input; submit it again"
        end_task(session, row, Status.FAILED, now, reason=Reason.INFRASTRUCTURE, detail=detail)
    else:
        row.detail = "the server was restored from a backup"
        requeue_task(session, row, now)
