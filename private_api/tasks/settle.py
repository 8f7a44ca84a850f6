"""How an attempt ends: its output is committed, it failed, or it is given back. Each is fenced and safe to repeat."""

from contract.errors import InvalidRequest, StaleFence
from contract.schemas import Commit, Failure, Release, Settled
from contract.statuses import Reason, Status
from private_api.archives import ArchiveStore, StoredArchive, Upload
from private_api.database import Database
from private_api.models import keep_archive
from private_api.tables import TaskRow
from private_api.tasks.limits import MAX_INFRASTRUCTURE_FAILURES, backoff
from private_api.tasks.rows import check_fence, end_attempts, end_task, lock_task, read_task, requeue_task


def output_key(uid: str, fence: int, sha256: str) -> str:
    """Where an attempt's output lies: no two attempts share a file, a repeated upload overwrites itself."""
    return f"outputs/{uid}/{fence}-{sha256}.zip"


def check_holder(database: Database, uid: str, fence: int) -> None:
    """Raises `StaleFence` or `TaskNotFound` before an upload is read that could never be committed."""
    with database.read() as session:
        row = read_task(session, uid)
        if not (row.status == Status.FINISHED and row.fence == fence):
            check_fence(row, fence)


def keep_output(store: ArchiveStore, upload: Upload, uid: str, fence: int) -> StoredArchive:
    """Make an uploaded output durable. Nobody sees it before `commit_output`; uncommitted ones go to the janitor."""
    return store.keep(upload, output_key(uid, fence, upload.sha256))


def commit_output(database: Database, store: ArchiveStore, uid: str, fence: int, commit: Commit) -> Settled:
    """Make the uploaded output the task's result; repeating the same commit answers the same.

    A cancel that came first wins: the output is never seen. Raises `StaleFence`, `TaskNotFound`, `InvalidRequest`.
    """
    key = output_key(uid, fence, commit.sha256)
    with database.write() as session:
        row = lock_task(session, uid)
        if row.status == Status.FINISHED and row.fence == fence and _output_sha256(row) == commit.sha256:
            return Settled(status=Status.FINISHED)
        if _ended_by_cancel(row, fence):
            return Settled(status=Status.CANCELLED)
        check_fence(row, fence)
        now = database.now(session)
        if row.cancel_at is not None:
            end_task(session, row, Status.CANCELLED, now, reason=Reason.CANCELLED, detail="cancelled by its owner")
            return Settled(status=Status.CANCELLED)
        path = store.path(key)
        if not path.is_file() or path.stat().st_size != commit.size_bytes:
            raise InvalidRequest("no output of this sha256 and size was uploaded under this fence")
        row.output = keep_archive(session, StoredArchive(key, commit.sha256, commit.size_bytes), now)
        row.exit_code = commit.exit_code
        end_task(session, row, Status.FINISHED, now)
        return Settled(status=Status.FINISHED)


def fail_task(database: Database, uid: str, fence: int, failure: Failure) -> Settled:
    """End the task for a reason its owner should see; repeating it answers the same. Raises `StaleFence`."""
    with database.write() as session:
        row = lock_task(session, uid)
        if _ended_by_cancel(row, fence) or (row.fence == fence and row.reason == failure.reason):
            return Settled(status=Status(row.status))
        check_fence(row, fence)
        now = database.now(session)
        row.exit_code = failure.exit_code
        cancelled = row.cancel_at is not None or failure.reason is Reason.CANCELLED
        end_task(
            session,
            row,
            Status.CANCELLED if cancelled else Status.FAILED,
            now,
            reason=Reason.CANCELLED if cancelled else failure.reason,
            detail="cancelled by its owner" if cancelled else failure.detail,
        )
        return Settled(status=Status(row.status))


def release_task(database: Database, uid: str, fence: int, release: Release) -> Settled:
    """Take the task back from a holder that cannot run it: it is queued again, after a pause unless blameless.

    The fence moves, so the holder cannot come back. Raises `StaleFence`, `TaskNotFound`.
    """
    with database.write() as session:
        row = lock_task(session, uid)
        check_fence(row, fence)
        now = database.now(session)
        row.fence += 1
        if not release.blameless:
            row.infrastructure_failures += 1
        if row.cancel_at is not None:
            end_task(session, row, Status.CANCELLED, now, reason=Reason.CANCELLED, detail="cancelled by its owner")
        elif row.infrastructure_failures >= MAX_INFRASTRUCTURE_FAILURES:
            detail = f"given up after {row.infrastructure_failures} failures of the infrastructure; the last: "
            end_task(session, row, Status.FAILED, now, reason=Reason.INFRASTRUCTURE, detail=detail + release.detail)
        else:
            end_attempts(session, row, now, outcome="released", detail=release.detail)
            pause = backoff(row.infrastructure_failures) if not release.blameless else now - now
            row.detail = release.detail
            requeue_task(session, row, now + pause)
        return Settled(status=Status(row.status))


def _ended_by_cancel(row: TaskRow, fence: int) -> bool:
    # The holder's own report may have ended the task so; when its answer was lost, it asks again.
    return row.status == Status.CANCELLED and row.fence == fence > 0


def _output_sha256(row: TaskRow) -> str:
    if row.output is None:
        raise StaleFence
    return row.output.sha256
