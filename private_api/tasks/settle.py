"""How holders end their attempts: by a commit, a failure or a release. Each call is fenced."""

import json

from sqlalchemy.orm import joinedload

from contract.errors import InvalidRequest, StaleFence
from contract.schemas import Commit, Failure, Release, Settled
from contract.statuses import Reason, Status
from kit.failpoints import reach
from private_api.archive_rows import add_archive
from private_api.archives import ArchiveStore, StoredArchive, Upload
from private_api.database import Database, repeated
from private_api.failpoints import Failpoint
from private_api.tables import Outcome, TaskRow
from private_api.tasks.blame import ends_task
from private_api.tasks.limits import MAX_INFRASTRUCTURE_FAILURES, backoff
from private_api.tasks.rows import (
    HOLDER_ALONE,
    check_fence,
    end_attempts,
    end_cancelled,
    end_task,
    lock_task_now,
    note_return,
    read_task,
    requeue_task,
)


def output_key(uid: str, fence: int, sha256: str) -> str:
    """The key of an attempt's output. No two attempts share a file; a repeated upload overwrites itself."""
    return f"outputs/{uid}/{fence}-{sha256}.zip"


def check_holder(database: Database, uid: str, fence: int) -> None:
    """Raises `StaleFence` or `TaskNotFound` for an upload that could never be committed, before it is read."""
    with database.read() as session:
        row = read_task(session, uid, *HOLDER_ALONE)
        if not (row.status == Status.FINISHED and row.fence == fence):
            check_fence(row, fence)


def keep_output(store: ArchiveStore, upload: Upload, uid: str, fence: int) -> StoredArchive:
    """Make an uploaded output durable. `commit_output` makes it visible; the janitor removes uncommitted ones."""
    reach(Failpoint.OUTPUT_RECEIVED)
    stored = store.keep(upload, output_key(uid, fence, upload.sha256))
    reach(Failpoint.OUTPUT_STORED)
    return stored


@repeated
def commit_output(database: Database, store: ArchiveStore, uid: str, fence: int, commit: Commit) -> Settled:
    """Make the uploaded output the task's result. Idempotent.

    A cancel that came first wins: the output is never visible. Raises `StaleFence`, `TaskNotFound`, `InvalidRequest`.
    """
    key = output_key(uid, fence, commit.sha256)
    with database.write() as session:
        row, now = lock_task_now(database, session, uid, joinedload(TaskRow.output))
        if row.status == Status.FINISHED and row.fence == fence and _output_sha256(row) == commit.sha256:
            return Settled(status=Status.FINISHED)
        if _ended_by_cancel(row, fence):
            return Settled(status=Status.CANCELLED)
        check_fence(row, fence)
        note_return(row)
        if row.cancel_at is not None:
            end_cancelled(session, row, now)
            return Settled(status=Status.CANCELLED)
        path = store.path(key)
        if not path.is_file() or path.stat().st_size != commit.size_bytes:
            raise InvalidRequest("no output of this sha256 and size was uploaded under this fence")
        stored = StoredArchive(key, commit.sha256, commit.size_bytes)
        row.output_id = add_archive(session, stored, now, owner=row.owner)
        row.exit_code, row.image = commit.exit_code, commit.image or row.image
        # ASCII: any text in it can be stored.
        row.warnings = json.dumps(commit.warnings) if commit.warnings else None
        row.warning_count = max(commit.warning_count, len(commit.warnings))
        end_task(session, row, Status.FINISHED, now)
        reach(Failpoint.COMMIT_WRITTEN)
    reach(Failpoint.COMMIT_COMMITTED)
    return Settled(status=Status.FINISHED)


@repeated
def fail_task(database: Database, uid: str, fence: int, failure: Failure) -> Settled:
    """End the task for a reason its owner should see. Idempotent. Raises `StaleFence`, `TaskNotFound`."""
    with database.write() as session:
        row, now = lock_task_now(database, session, uid)
        if _ended_by_cancel(row, fence) or (row.fence == fence and row.reason == failure.reason):
            return Settled(status=row.status)
        check_fence(row, fence)
        note_return(row)
        row.exit_code, row.image = failure.exit_code, failure.image or row.image
        if row.cancel_at is not None or failure.reason is Reason.CANCELLED:
            end_cancelled(session, row, now)
        else:
            end_task(session, row, Status.FAILED, now, reason=failure.reason, detail=failure.detail)
        return Settled(status=row.status)


@repeated
def release_task(database: Database, uid: str, fence: int, release: Release) -> Settled:
    """Queue the task again for a holder that cannot run it, after a pause unless the release is blameless.

    The fence moves, so the holder cannot come back and a repeated call is refused. Raises `StaleFence`, `TaskNotFound`.
    """
    with database.write() as session:
        row, now = lock_task_now(database, session, uid)
        check_fence(row, fence)
        row.fence += 1
        if not release.blameless:
            row.infrastructure_failures += 1
        if row.cancel_at is not None:
            end_cancelled(session, row, now)
        elif not release.blameless and ends_task(
            session,
            row,
            now,
            failures=row.infrastructure_failures,
            limit=MAX_INFRASTRUCTURE_FAILURES,
            outcome=Reason.INFRASTRUCTURE,
        ):
            detail = f"given up after {row.infrastructure_failures} failures of the infrastructure; the last: "
            end_task(session, row, Status.FAILED, now, reason=Reason.INFRASTRUCTURE, detail=detail + release.detail)
        else:
            outcome = Outcome.RELEASED if release.blameless else Reason.INFRASTRUCTURE
            end_attempts(session, row, now, outcome=outcome, detail=release.detail)
            pause = backoff(row.infrastructure_failures) if not release.blameless else now - now
            row.detail = release.detail
            requeue_task(session, row, now + pause)
        return Settled(status=row.status)


def _ended_by_cancel(row: TaskRow, fence: int) -> bool:
    # The holder's own report may have cancelled the task; it repeats the call if the answer was lost.
    return row.status == Status.CANCELLED and row.fence == fence > 0


def _output_sha256(row: TaskRow) -> str:
    if row.output is None:
        raise StaleFence
    return row.output.sha256
