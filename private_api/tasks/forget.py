"""What stays of a task that was deleted, or that ended long ago: a tombstone, and in the end nothing.

A tombstone says what a poll answers: uid, owner, model, status, reason, exit code, times, and which consumers held the
task. It has nothing that its owner wrote or that its container said, which may name a patient.
"""

from datetime import datetime

from sqlalchemy import ColumnElement, delete, exists, or_, select, update
from sqlalchemy.orm import Session

from private_api.tables import ArchiveRow, AttemptRow, EventRow, OutboxRow, TaskRow

_EMPTY = {
    "idempotency_key": None,
    "owner_idempotency_key": None,
    "label": None,
    "progress_text": None,
    "detail": None,
    "warnings": None,
    "warning_count": 0,
}


def forget_tasks(session: Session, expired: ColumnElement[bool], now: datetime, *, limit: int) -> list[str]:
    """Make tombstones of tasks that have ended and were deleted or are `expired`, at most so many. Returns their uids.

    A repeated submission under the idempotency key of one is a new task.
    """
    due = TaskRow.ended_at.is_not(None) & TaskRow.forgotten_at.is_(None) & or_(TaskRow.deleted_at.is_not(None), expired)
    page = session.execute(select(TaskRow.id, TaskRow.uid).where(due).order_by(TaskRow.id).limit(limit)).all()
    ids = [row.id for row in page]
    told = AttemptRow.task_id.in_(ids) & AttemptRow.detail.is_not(None)
    session.execute(update(AttemptRow).where(told).values(detail=None))
    session.execute(update(TaskRow).where(TaskRow.id.in_(ids)).values(**_EMPTY, forgotten_at=now))
    return [row.uid for row in page]


def purge_tasks(session: Session, outdated: ColumnElement[bool], *, limit: int) -> int:
    """Remove `outdated` tombstones whose files are gone, with all that hangs on them, at most so many.

    Returns how many there were. The task of the newest event stays: SQLite gives the largest id of a table again once
    its row is gone, and the stream of events counts by ids.
    """
    newest = select(EventRow.task_id).order_by(EventRow.id.desc()).limit(1).scalar_subquery()
    # NULL, the output of a task that did not finish, is in no list.
    has_files = exists().where(
        or_(ArchiveRow.id == TaskRow.input_id, ArchiveRow.id == TaskRow.output_id), ArchiveRow.removed_at.is_(None)
    )
    statement = select(TaskRow.id, TaskRow.uid, TaskRow.input_id, TaskRow.output_id).where(
        TaskRow.forgotten_at.is_not(None), outdated, TaskRow.id != newest, ~has_files
    )
    page = session.execute(statement.order_by(TaskRow.id).limit(limit)).all()
    ids = [row.id for row in page]
    archives = [each for row in page for each in (row.input_id, row.output_id) if each is not None]
    session.execute(delete(OutboxRow).where(OutboxRow.uid.in_([row.uid for row in page])))
    session.execute(delete(EventRow).where(EventRow.task_id.in_(ids)))
    session.execute(delete(AttemptRow).where(AttemptRow.task_id.in_(ids)))
    session.execute(delete(TaskRow).where(TaskRow.id.in_(ids)))
    session.execute(delete(ArchiveRow).where(ArchiveRow.id.in_(archives)))
    return len(page)
