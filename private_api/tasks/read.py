"""A task as its owner sees it, and what polling answers: a pure function of the row."""

from dataclasses import dataclass
from datetime import datetime
from statistics import median

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, joinedload

from contract.errors import (
    InferenceError,
    InvalidRequest,
    OutputMissing,
    TaskFailed,
    TaskNotFound,
    TaskPending,
    Unauthenticated,
)
from contract.schemas import TaskView
from contract.statuses import Phase, Reason, Status
from private_api.archives import ArchiveStore
from private_api.callers import Caller
from private_api.database import Database
from private_api.models import view_archive
from private_api.tables import AttemptRow, ConsumerRow, TaskRow
from private_api.task_logs import TaskLogs
from private_api.tasks.limits import LEASE
from private_api.tasks.rows import find_task, is_open_to

_SAMPLE = 20
"""How many past runs of a model the estimate looks at."""


@dataclass(frozen=True)
class Output:
    """A task's result at rest."""

    key: str
    sha256: str
    size_bytes: int


def show_task(database: Database, logs: TaskLogs, uid: str, caller: Caller) -> TaskView:
    """The whole task. Raises `TaskNotFound`."""
    with database.read() as session:
        row = find_task(session, uid, caller)
        now = database.now(session)
        position = _position(session, row)
        view = _view(row, position=position, eta=_estimate_seconds(session, row, position, now))
        fence = _last_fence(session, row)
    if view.status is not Status.FAILED or fence is None:
        return view
    return view.model_copy(update={"log_tail": logs.tail(uid, fence) or None})


def list_tasks(database: Database, caller: Caller, *, limit: int, after: str | None) -> list[TaskView]:
    """A page of the caller's own tasks, newest first, without what costs further queries: position, eta, log_tail.

    `after` is the last uid of the page before; it may have been deleted since. Raises `Unauthenticated` without a key,
    `InvalidRequest`.
    """
    if caller.owner is None:
        raise Unauthenticated("the list is that of a key's owner: X-API-Key: <key>, or Authorization: Bearer <key>")
    own = TaskRow.owner == caller.owner
    page = select(TaskRow).options(joinedload(TaskRow.input), joinedload(TaskRow.output)).where(own)
    with database.read() as session:
        if after is not None:
            last_id = session.scalar(select(TaskRow.id).where(own, TaskRow.uid == after))
            if last_id is None:
                raise InvalidRequest("after: none of your tasks has this uid")
            page = page.where(TaskRow.id < last_id)
        page = page.where(TaskRow.deleted_at.is_(None)).order_by(TaskRow.id.desc()).limit(limit)
        return [_view(row) for row in session.scalars(page)]


def is_ended(database: Database, uid: str, caller: Caller) -> bool:
    """Whether the task is terminal: all that those who wait for it need to know. Raises `TaskNotFound`."""
    statement = select(TaskRow.status).where(TaskRow.uid == uid, is_open_to(caller), TaskRow.deleted_at.is_(None))
    with database.read() as session:
        status = session.scalar(statement)
    if status is None:
        raise TaskNotFound
    return Status(status).is_terminal


def poll_error(view: TaskView) -> InferenceError | None:
    """What a poll answers instead of the zip, or None where there is one."""
    fields = view.model_dump(
        mode="json", include={"status", "reason", "position", "eta", "attempt", "exit_code", "log_tail"}
    )
    if view.status in (Status.FAILED, Status.CANCELLED):
        return TaskFailed(f"the task {view.status}: {view.detail or view.reason}", **fields)
    if view.status is not Status.FINISHED:
        trouble = f"; its last attempt: {view.detail}" if view.detail else ""
        return TaskPending(f"the task is {view.status}{trouble}", **fields)
    if view.output is None:
        return OutputMissing(
            "the task finished, but its output was removed: it was older than KEEP_FINISHED_FOR", **fields
        )
    return None


def find_output(database: Database, store: ArchiveStore, logs: TaskLogs, uid: str, caller: Caller) -> Output:
    """The result of a finished task. Raises `TaskNotFound`, `TaskPending`, `TaskFailed`, `OutputMissing`."""
    view = show_task(database, logs, uid, caller)
    if error := poll_error(view):
        raise error
    with database.read() as session:
        archive = find_task(session, uid, caller).output
        if archive is None or not store.path(archive.key).is_file():
            raise OutputMissing("the task finished, but its output's file is missing on the server", status=view.status)
        return Output(archive.key, archive.sha256, archive.size_bytes)


def find_log(database: Database, uid: str, caller: Caller) -> tuple[int | None, Status]:
    """The fence of the newest attempt, whose log is the task's, and the task's status. Raises `TaskNotFound`."""
    with database.read() as session:
        row = find_task(session, uid, caller)
        return _last_fence(session, row), Status(row.status)


def _view(row: TaskRow, *, position: int | None = None, eta: float | None = None) -> TaskView:
    return TaskView(
        uid=row.uid,
        owner=row.owner,
        human_readable_id=row.model_version.model.human_readable_id,
        model_version=row.model_version.number,
        priority=row.priority,
        status=Status(row.status),
        # A queued row may still have the phase of a holder that was cut off.
        phase=Phase(row.phase) if row.phase and row.lease_owner else None,
        reason=Reason(row.reason) if row.reason else None,
        detail=row.detail,
        exit_code=row.exit_code,
        cancel_requested=row.cancel_at is not None,
        position=position,
        eta=eta,
        attempt=row.attempts,
        consumer=row.lease_owner,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        input=view_archive(row.input),
        output=view_archive(row.output),
    )


def _last_fence(session: Session, row: TaskRow) -> int | None:
    # Not the task's own fence: giving a task back moves that without an attempt.
    return session.scalar(select(func.max(AttemptRow.fence)).where(AttemptRow.task_id == row.id))


def _position(session: Session, row: TaskRow) -> int | None:
    if row.status != Status.QUEUED:
        return None
    older = or_(TaskRow.not_before < row.not_before, (TaskRow.not_before == row.not_before) & (TaskRow.id < row.id))
    earlier = or_(TaskRow.priority > row.priority, (TaskRow.priority == row.priority) & older)
    statement = select(func.count()).where(TaskRow.status == Status.QUEUED, TaskRow.use_gpu.is_(row.use_gpu), earlier)
    return session.scalar(statement) or 0


def _estimate_seconds(session: Session, row: TaskRow, position: int | None, now: datetime) -> float | None:
    if Status(row.status).is_terminal:
        return None
    statement = (
        select(TaskRow.started_at, TaskRow.ended_at)
        .where(TaskRow.model_version_id == row.model_version_id, TaskRow.status == Status.FINISHED)
        .order_by(TaskRow.ended_at.desc())
        .limit(_SAMPLE)
    )
    runs = [(ended - started).total_seconds() for started, ended in session.execute(statement) if started and ended]
    if not runs:
        return None
    if position is None:
        elapsed = (now - row.started_at).total_seconds() if row.started_at else 0.0
        return round(max(0.0, median(runs) - elapsed), 1)
    capable = ConsumerRow.gpu_uuid.is_not(None) if row.use_gpu else ConsumerRow.accepts_cpu_tasks
    consumers = session.scalar(select(func.count()).where(capable, ConsumerRow.seen_at > now - LEASE)) or 1
    return round(median(runs) * (position // consumers + 1), 1)
