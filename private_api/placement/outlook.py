"""A task with its outlook, and the answer to a poll: its place in the queue, what it waits for, when it will end."""

import json
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from contract.access import Caller
from contract.errors import InferenceError, OutputMissing
from contract.schemas import TaskView
from contract.statuses import Status, WaitsFor
from private_api.archives import ArchiveStore, StoredArchive
from private_api.database import Database
from private_api.models import stored_archive
from private_api.placement.duration import Run, expect_seconds, usual_seconds
from private_api.placement.places import find_position
from private_api.placement.waiting import Wait, find_wait, read_live
from private_api.recent import AT_ONCE, Recent
from private_api.tables import ArchiveRow, AttemptRow, Outcome, TaskRow
from private_api.task_logs import TaskLogs
from private_api.tasks.ahead import is_prepared_ahead
from private_api.tasks.read import as_seen_by, last_fence, poll_error, read_polled, view_task
from private_api.tasks.rows import find_task, may_read

_SAMPLE = 20
"""How many past runs of a model the estimate looks at."""
_UNFORESEEABLE = frozenset({WaitsFor.CONSUMER, WaitsFor.RESUME, WaitsFor.REPAIR, WaitsFor.HELD_GPU, WaitsFor.QUOTA})
"""Waits that end when somebody does something, or that the place in the queue says nothing of."""


_BEGAN_AT = func.coalesce(AttemptRow.begun_at, AttemptRow.claimed_at)
"""What was prepared ahead waited for the task before it."""


@dataclass(frozen=True)
class StoredOutput(StoredArchive):
    """The result of a finished task."""

    warning_count: int


@dataclass(frozen=True)
class Outlook:
    """What is to come for a task that has not ended."""

    position: int | None = None
    eta: float | None = None
    wait: Wait | None = None


def show_task(database: Database, logs: TaskLogs, uid: str, caller: Caller, *, recent: Recent = AT_ONCE) -> TaskView:
    """The whole task. Its warnings, and what else may name files or patients, are for those who may read them.

    What it says of the queue is as `recent` has it. Raises `TaskNotFound`.
    """
    with database.read() as session:
        row = find_task(session, uid, caller)
        view = _whole_view(session, row, logs, database.now(session), caller, recent=recent)
        if row.warnings is None or not may_read(caller, row.owner):
            return view
        return view.model_copy(update={"warnings": json.loads(row.warnings)})


def find_output(
    database: Database, store: ArchiveStore, logs: TaskLogs, uid: str, caller: Caller, *, recent: Recent = AT_ONCE
) -> StoredOutput:
    """The result of a finished task. Raises `TaskNotFound`, `TaskPending`, `TaskFailed`, `OutputMissing`.

    What the latter say of the queue is as `recent` has it.
    """
    with database.read() as session:
        row, now = read_polled(database, session, uid, caller)
        # Most polls are of tasks that wait.
        if row.status == Status.QUEUED:
            raise pending(session, row, now, caller, recent, position=find_position(session, row, recent))
        if (output := stored_archive(row.output)) is None:
            # It may have ended since.
            row = find_task(session, uid, caller)
            output = stored_archive(row.output)
        if output is None:
            raise poll_error(_whole_view(session, row, logs, now, caller, recent=recent))
        if row.output is not None and row.output.damaged_at is not None:
            detail = "the task finished, but its output's file is damaged on the server; its operator can restore it"
            raise OutputMissing(detail, status=row.status)
    if not store.path(output.key).is_file():
        raise OutputMissing("the task finished, but its output's file is missing on the server", status=row.status)
    return StoredOutput(output.key, output.sha256, output.size_bytes, row.warning_count)


def read_outlook(session: Session, row: TaskRow, now: datetime, recent: Recent = AT_ONCE) -> Outlook:
    """The outlook of a task."""
    if row.status.is_terminal:
        return Outlook()
    wait = find_wait(session, row, now, recent)
    if row.status != Status.QUEUED and not is_prepared_ahead(session, row):
        return Outlook(eta=_estimate_rest(session, row, now), wait=wait)
    position = find_position(session, row, recent)
    return Outlook(position, _estimate_whole(session, row, position, wait, now, recent=recent), wait)


def pending(
    session: Session, row: TaskRow, now: datetime, caller: Caller, recent: Recent, *, position: int
) -> InferenceError:
    """What a poll is answered of a queued task that the caller may see: `position` others are before it.

    `row` is as `read_polled` returns it.
    """
    wait = find_wait(session, row, now, recent)
    outlook = Outlook(position, _estimate_whole(session, row, position, wait, now, recent=recent), wait)
    view = TaskView.model_construct(
        status=row.status,
        exit_code=row.exit_code,
        attempt=row.attempts,
        detail=row.detail if may_read(caller, row.owner) else None,
        position=outlook.position,
        eta=outlook.eta,
        waits_for=outlook.wait.waits_for if outlook.wait else None,
        wait_detail=outlook.wait.detail if outlook.wait else None,
    )
    return poll_error(view)


def _whole_view(
    session: Session, row: TaskRow, logs: TaskLogs, now: datetime, caller: Caller, *, recent: Recent
) -> TaskView:
    outlook = read_outlook(session, row, now, recent)
    extra: dict[str, object] = {"position": outlook.position, "eta": outlook.eta}
    if outlook.wait is not None:
        extra |= {"waits_for": outlook.wait.waits_for, "wait_detail": outlook.wait.detail}
    tells_log = row.status == Status.FAILED and may_read(caller, row.owner)
    if tells_log and (fence := last_fence(session, row)) is not None:
        extra["log_tail"] = logs.tail(row.uid, fence) or None
    return as_seen_by(caller, view_task(row)).model_copy(update=extra)


def _estimate_whole(
    session: Session, row: TaskRow, position: int, wait: Wait | None, now: datetime, *, recent: Recent
) -> float | None:
    """Seconds until a queued task ends, or None if nobody can know."""
    if wait is not None and wait.waits_for in _UNFORESEEABLE:
        return None
    runs = recent.get(("runs", row.model_version_id), lambda: _past_runs(session, row))
    if not runs:
        return None
    live = read_live(session, now, recent, use_gpu=row.use_gpu)
    consumers = sum(each.draining_at is None and each.trouble is None for each, _ in live) or 1
    pause_s = max(0.0, (row.not_before - now).total_seconds())
    # Those before it are taken for tasks like the model's usual ones.
    before_s = usual_seconds(runs) * (position // consumers)
    return _known(pause_s + before_s + expect_seconds(runs, row.input.size_bytes))


def _estimate_rest(session: Session, row: TaskRow, now: datetime) -> float | None:
    """Seconds until a held task ends, or None if it takes longer than expected."""
    runs = _past_runs(session, row)
    claimed = select(_BEGAN_AT).where(AttemptRow.task_id == row.id, AttemptRow.fence == row.fence)
    claimed_at = session.scalar(claimed)
    if not runs or claimed_at is None:
        return None
    return _known(expect_seconds(runs, row.input.size_bytes) - (now - claimed_at).total_seconds())


def _known(seconds: float) -> float | None:
    """An estimate in tenths of seconds. What rounds to none is no knowledge: whoever reads it still waits."""
    rounded = round(seconds, 1)
    return rounded if rounded > 0 else None


def _past_runs(session: Session, row: TaskRow) -> list[Run]:
    """The model's last finished tasks, from claim to end: preparation and delivery included."""
    statement = (
        select(_BEGAN_AT, AttemptRow.ended_at, ArchiveRow.size_bytes)
        .join(TaskRow, TaskRow.id == AttemptRow.task_id)
        .join(ArchiveRow, ArchiveRow.id == TaskRow.input_id)
        .where(
            TaskRow.model_version_id == row.model_version_id,
            TaskRow.status == Status.FINISHED,
            AttemptRow.outcome == Outcome.FINISHED,
        )
        .order_by(TaskRow.ended_at.desc())
        .limit(_SAMPLE)
    )
    found = session.execute(statement)
    return [Run((ended - claimed).total_seconds(), size) for claimed, ended, size in found if ended]
