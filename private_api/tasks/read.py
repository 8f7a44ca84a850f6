"""What a task's own rows say of it, and the error that answers a poll without an output."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from contract.access import Caller
from contract.errors import (
    InferenceError,
    OutputMissing,
    TaskFailed,
    TaskNotFound,
    TaskPending,
)
from contract.schemas import TaskView
from contract.statuses import Status, WaitsFor
from private_api.database import Database
from private_api.models import view_archive
from private_api.tables import ArchiveRow, AttemptRow, TaskRow
from private_api.tasks.rows import find_task, is_open_to, may_read

_TOLD = {
    "status",
    "reason",
    "position",
    "eta",
    "waits_for",
    "wait_detail",
    "pull_percent",
    "progress",
    "attempt",
    "exit_code",
    "log_tail",
}
"""What the body of a poll's answer says of the task."""
_POLLED = (
    TaskRow.id,
    TaskRow.owner,
    TaskRow.model_version_id,
    TaskRow.use_gpu,
    TaskRow.priority,
    TaskRow.running_limit,
    TaskRow.status,
    TaskRow.not_before,
    TaskRow.attempts,
    TaskRow.exit_code,
    TaskRow.detail,
    TaskRow.warning_count,
)
_OUTPUT_ROW = aliased(ArchiveRow)
_OUTPUT = (
    _OUTPUT_ROW.key,
    _OUTPUT_ROW.sha256,
    _OUTPUT_ROW.size_bytes,
    _OUTPUT_ROW.removed_at,
    _OUTPUT_ROW.damaged_at,
)
_WORTH_TELLING = frozenset({WaitsFor.CONSUMER, WaitsFor.RESUME, WaitsFor.REPAIR, WaitsFor.HELD_GPU})
"""Waits that last until somebody does something."""


def is_ended(database: Database, uid: str, caller: Caller) -> bool:
    """Whether the task is terminal, which is all that waiting requests need to know. Raises `TaskNotFound`."""
    statement = select(TaskRow.status).where(TaskRow.uid == uid, is_open_to(caller), TaskRow.deleted_at.is_(None))
    with database.read() as session:
        status = session.scalar(statement)
    if status is None:
        raise TaskNotFound
    return status.is_terminal


def read_polled(database: Database, session: Session, uid: str, caller: Caller) -> tuple[TaskRow, datetime]:
    """As much of a task as a poll tells of or needs if it is queued or has an output, detached; and the time.

    Its input has its size, its output is whole. Raises `TaskNotFound`.
    """
    statement = (
        select(*_POLLED, ArchiveRow.size_bytes.label("size_bytes"), *_OUTPUT)
        .add_columns(database.clock().label("now"))
        .join(TaskRow.input)
        .outerjoin(_OUTPUT_ROW, _OUTPUT_ROW.id == TaskRow.output_id)
        .where(TaskRow.uid == uid, is_open_to(caller), TaskRow.deleted_at.is_(None))
    )
    found = session.execute(statement).one_or_none()
    if found is None:
        raise TaskNotFound
    values, (size_bytes, *stored, now) = found[: len(_POLLED)], found[len(_POLLED) :]
    row = TaskRow(**{column.key: value for column, value in zip(_POLLED, values, strict=True)})
    row.input = ArchiveRow(size_bytes=size_bytes)
    if stored[0] is not None:
        row.output = ArchiveRow(**{column.key: value for column, value in zip(_OUTPUT, stored, strict=True)})
    return row, database.told(now)


def read_all_queued(session: Session, uids: Collection[str]) -> dict[str, TaskRow]:
    """The same of those of the tasks that are queued, without outputs, whoever asks, by uid."""
    statement = select(TaskRow.uid, *_POLLED, ArchiveRow.size_bytes).join(TaskRow.input)
    are_there = (TaskRow.uid.in_(uids), TaskRow.deleted_at.is_(None), TaskRow.status == Status.QUEUED)
    return {uid: _polled(values) for uid, *values in session.execute(statement.where(*are_there))}


def _polled(values: Sequence[Any]) -> TaskRow:
    *columns, size_bytes = values
    named = {column.key: value for column, value in zip(_POLLED, columns, strict=True)}
    return TaskRow(**named, input=ArchiveRow(size_bytes=size_bytes))


def poll_error(view: TaskView) -> InferenceError:
    """What a poll answers for a task without a stored output."""
    fields = view.model_dump(mode="json", include=_TOLD)
    if view.status in (Status.FAILED, Status.CANCELLED):
        return TaskFailed(f"the task {view.status}: {view.detail or view.reason}", **fields)
    if view.status is not Status.FINISHED:
        trouble = f"; its last attempt: {view.detail}" if view.detail else ""
        why = f": {view.wait_detail}" if view.waits_for in _WORTH_TELLING else ""
        return TaskPending(f"the task is {view.status}{why}{trouble}", **fields)
    return OutputMissing("the task finished, but its output was removed: it was older than KEEP_FINISHED_FOR", **fields)


def find_log(database: Database, uid: str, caller: Caller) -> tuple[int | None, Status]:
    """The fence of the newest attempt, whose log is the task's, and the task's status. Raises `TaskNotFound`."""
    with database.read() as session:
        row = find_task(session, uid, caller)
        return last_fence(session, row), row.status


def view_task(row: TaskRow) -> TaskView:
    """What the row itself says of the task."""
    return TaskView(
        uid=row.uid,
        owner=row.owner,
        human_readable_id=row.model_version.model.human_readable_id,
        model_version=row.model_version.number,
        priority=row.priority,
        label=row.label,
        status=row.status,
        # A queued row may still have the phase of a holder whose lease expired.
        phase=row.phase if row.phase and row.lease_owner else None,
        reason=row.reason if row.reason else None,
        detail=row.detail,
        exit_code=row.exit_code,
        cancel_requested=row.cancel_at is not None,
        # These take further queries, as the warnings do; see `placement.outlook`.
        position=None,
        eta=None,
        waits_for=None,
        wait_detail=None,
        pull_percent=row.pull_percent if row.lease_owner else None,
        progress=row.progress if row.lease_owner else None,
        progress_text=row.progress_text if row.lease_owner else None,
        attempt=row.attempts,
        image=row.image,
        consumer=row.lease_owner,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        input=view_archive(row.input),
        output=view_archive(row.output),
        warning_count=row.warning_count,
        rerun_of=row.rerun_of,
    )


def as_seen_by(caller: Caller, view: TaskView) -> TaskView:
    """Without detail, label and what its model says, which may name files or patients, of another owner's task."""
    if may_read(caller, view.owner):
        return view
    return view.model_copy(update={"detail": None, "label": None, "progress_text": None})


def last_fence(session: Session, row: TaskRow) -> int | None:
    """The fence of the task's newest attempt."""
    # Not the task's own fence, which a release moves without a new attempt.
    return session.scalar(select(func.max(AttemptRow.fence)).where(AttemptRow.task_id == row.id))
