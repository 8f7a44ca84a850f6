"""How an owner ends or deletes a task."""

from sqlalchemy.orm import Session

from contract.errors import TaskNotFound
from contract.statuses import Reason, Status
from private_api.callers import Caller
from private_api.database import Database
from private_api.tables import TaskRow
from private_api.tasks.rows import end_task, lock_task


def cancel_task(database: Database, uid: str, caller: Caller) -> None:
    """End a waiting task at once; a held one is told with its next heartbeat. An ended one stays as it is.

    Raises `TaskNotFound`.
    """
    with database.write() as session:
        row = lock_task(session, uid, caller)
        if row.deleted_at is not None:
            raise TaskNotFound
        _cancel(database, session, row)


def delete_task(database: Database, uid: str, caller: Caller) -> None:
    """Hide the task for good and let what it stored be removed; what runs is cancelled. Again: nothing.

    Files go once the task has ended, by the janitor: its holder may still be reading them. Raises `TaskNotFound` for
    a uid that never was.
    """
    with database.write() as session:
        row = lock_task(session, uid, caller)
        if row.deleted_at is None:
            _cancel(database, session, row)
            row.deleted_at = database.now(session)


def _cancel(database: Database, session: Session, row: TaskRow) -> None:
    status = Status(row.status)
    if status.is_terminal:
        return
    now = database.now(session)
    row.cancel_at = row.cancel_at or now
    if status is Status.QUEUED:
        end_task(session, row, Status.CANCELLED, now, reason=Reason.CANCELLED, detail="cancelled by its owner")
