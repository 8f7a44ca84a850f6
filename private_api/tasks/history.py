"""What has happened to a task, as it was recorded."""

from sqlalchemy import select

from contract.access import Caller
from contract.history import AttemptView, EventView
from private_api.database import Database
from private_api.tables import AttemptRow, EventRow
from private_api.tasks.rows import find_task, may_read


def list_events(database: Database, uid: str, caller: Caller) -> list[EventView]:
    """Every change of the task's status, oldest first. Raises `TaskNotFound`."""
    with database.read() as session:
        row = find_task(session, uid, caller)
        events = session.scalars(select(EventRow).where(EventRow.task_id == row.id).order_by(EventRow.id))
        return [
            EventView(
                at=event.at,
                old_status=event.old_status if event.old_status else None,
                new_status=event.new_status,
                fence=event.fence,
                reason=event.reason if event.reason else None,
                rerun_of=None if event.old_status else row.rerun_of,
            )
            for event in events
        ]


def list_attempts(database: Database, uid: str, caller: Caller) -> list[AttemptView]:
    """Every attempt of the task, oldest first. Raises `TaskNotFound`.

    Of another owner's task the details, which may name files, are for the scope admin.
    """
    with database.read() as session:
        row = find_task(session, uid, caller)
        tells_all = may_read(caller, row.owner)
        attempts = session.scalars(select(AttemptRow).where(AttemptRow.task_id == row.id).order_by(AttemptRow.fence))
        return [
            AttemptView(
                fence=attempt.fence,
                consumer=attempt.consumer,
                gpu_uuid=attempt.gpu_uuid,
                replica_uid=attempt.replica_uid,
                image=row.image if attempt.ended_at is None else attempt.image,
                claimed_at=attempt.claimed_at,
                ended_at=attempt.ended_at,
                outcome=attempt.outcome,
                detail=attempt.detail if tells_all else None,
            )
            for attempt in attempts
        ]
