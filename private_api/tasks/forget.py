"""What stays of a task that was deleted, or that ended long ago: a tombstone, and in the end nothing.

A tombstone says what a poll answers: uid, owner, model, status, reason, exit code, times, and which consumers held the
task. It has nothing that its owner wrote or that its container said, which may name a patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, select, update
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
IS_DELETED = TaskRow.deleted_at.is_not(None)
"""The condition that a task was deleted."""


@dataclass(frozen=True)
class Remains:
    """What a page of tasks leaves outside the database, to be removed."""

    logs: Sequence[tuple[str, int]]
    """The uid and the newest fence of every task of the page."""
    keys: Sequence[str]
    """Of archives."""


def forget_tasks(session: Session, due: ColumnElement[bool], now: datetime, *, limit: int) -> Remains:
    """Make tombstones of tasks that have ended and are `due`, at most so many, and close their archives.

    A repeated submission under the idempotency key of one is a new task.
    """
    # As the indexes have it, which cover nothing but tasks that have ended and are no tombstones.
    kept = TaskRow.ended_at.is_not(None) & TaskRow.forgotten_at.is_(None)
    columns = (TaskRow.id, TaskRow.uid, TaskRow.fence, TaskRow.input_id, TaskRow.output_id)
    page = session.execute(select(*columns).where(kept, due).order_by(TaskRow.ended_at).limit(limit)).all()
    if not page:
        return Remains([], [])
    ids = [row.id for row in page]
    told = AttemptRow.task_id.in_(ids) & AttemptRow.detail.is_not(None)
    session.execute(update(AttemptRow).where(told).values(detail=None), execution_options=_BLIND)
    forgotten = update(TaskRow).where(TaskRow.id.in_(ids)).values(**_EMPTY, forgotten_at=now)
    session.execute(forgotten, execution_options=_BLIND)
    keys = close_archives(session, [each for row in page for each in (row.input_id, row.output_id)], now)
    return Remains([(row.uid, row.fence) for row in page], keys)


def close_archives(session: Session, ids: Sequence[int | None], now: datetime) -> Sequence[str]:
    """Note that these archives are removed. Returns the keys of those that were kept, whose files are to go now."""
    kept = ArchiveRow.id.in_([each for each in ids if each is not None]) & ArchiveRow.removed_at.is_(None)
    closed = update(ArchiveRow).where(kept).values(removed_at=now).returning(ArchiveRow.key)
    return session.scalars(closed, execution_options=_BLIND).all()


def purge_tasks(session: Session, outdated: ColumnElement[bool], *, limit: int) -> Remains:
    """Remove `outdated` tombstones with all that hangs on them, at most so many.

    The task of the newest event stays: SQLite gives the largest id of a table again once its row is gone, and the
    stream of events counts by ids.
    """
    newest = select(EventRow.task_id).order_by(EventRow.id.desc()).limit(1).scalar_subquery()
    columns = (TaskRow.id, TaskRow.uid, TaskRow.fence, TaskRow.input_id, TaskRow.output_id)
    statement = select(*columns).where(TaskRow.forgotten_at.is_not(None), outdated, TaskRow.id != newest)
    page = session.execute(statement.order_by(TaskRow.ended_at).limit(limit)).all()
    if not page:
        return Remains([], [])
    ids = [row.id for row in page]
    archives = [each for row in page for each in (row.input_id, row.output_id) if each is not None]
    # Of tombstones that an earlier release made, whose files it did not get to.
    kept = ArchiveRow.id.in_(archives) & ArchiveRow.removed_at.is_(None)
    keys = session.scalars(select(ArchiveRow.key).where(kept)).all()
    for statement_ in (
        delete(OutboxRow).where(OutboxRow.uid.in_([row.uid for row in page])),
        delete(EventRow).where(EventRow.task_id.in_(ids)),
        delete(AttemptRow).where(AttemptRow.task_id.in_(ids)),
        delete(TaskRow).where(TaskRow.id.in_(ids)),
        delete(ArchiveRow).where(ArchiveRow.id.in_(archives)),
    ):
        session.execute(statement_, execution_options=_BLIND)
    return Remains([(row.uid, row.fence) for row in page], keys)


_BLIND = {"synchronize_session": False}
"""The session holds none of the rows, so it need not look for them."""
