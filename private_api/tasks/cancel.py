"""Cancelling and deleting tasks."""

from datetime import datetime

from sqlalchemy.orm import Session

from contract.access import Caller
from contract.errors import TaskNotFound
from contract.statuses import Status
from private_api.audit.record import record
from private_api.audit_tables import Action
from private_api.database import Database, repeated
from private_api.tables import TaskRow
from private_api.tasks.ahead import is_prepared_ahead, take_from_holder
from private_api.tasks.rows import end_cancelled, lock_task


@repeated
def cancel_task(database: Database, uid: str, caller: Caller) -> None:
    """End a task at once that has not begun, and let the holder of another one end it. An ended one stays as it is.

    Raises `TaskNotFound`.
    """
    with database.write() as session:
        row = lock_task(session, uid, caller)
        if row.deleted_at is not None:
            raise TaskNotFound
        if not row.status.is_terminal:
            now = database.now(session)
            _cancel(session, row, now)
            record(session, caller, Action.CANCEL_TASK, uid, now)


@repeated
def delete_task(database: Database, uid: str, caller: Caller) -> None:
    """Cancel the task, hide it for good, and let its files be removed. Idempotent.

    The janitor removes the files once the task has ended: its holder may still be reading them. Raises `TaskNotFound`
    for an unknown uid.
    """
    with database.write() as session:
        row = lock_task(session, uid, caller)
        if row.deleted_at is None:
            now = database.now(session)
            _cancel(session, row, now)
            row.deleted_at = now
            record(session, caller, Action.DELETE_TASK, uid, now)


def _cancel(session: Session, row: TaskRow, now: datetime) -> None:
    status = row.status
    if status.is_terminal:
        return
    row.cancel_at = row.cancel_at or now
    if status is Status.QUEUED:
        end_cancelled(session, row, now)
    elif is_prepared_ahead(session, row):
        take_from_holder(session, row, now, "cancelled by its owner")
