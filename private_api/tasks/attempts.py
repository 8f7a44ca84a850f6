"""The attempt that holds a task: its assignment, its archives, and the heartbeat that keeps its lease."""

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import aliased, joinedload

from contract.errors import StaleFence
from contract.heartbeats import Heartbeat, HeartbeatReply
from contract.schemas import Assignment
from contract.statuses import Phase, Status
from kit.failpoints import reach
from private_api.archives import StoredArchive
from private_api.database import Database, repeated
from private_api.failpoints import Failpoint
from private_api.leases import LEASE, note_seen
from private_api.models import stored_archive, view_archive
from private_api.tables import AttemptRow, TaskRow
from private_api.tasks.ahead import note_begun
from private_api.tasks.limits import SizeLimits, phase_limit
from private_api.tasks.rows import HOLDER_ALONE, check_fence, lock_task_now, move_task, note_return, read_held_task

# Made once: it takes longer than a statement.
_OTHER = aliased(TaskRow)


def show_assignment(database: Database, uid: str, fence: int, sizes: SizeLimits) -> Assignment:
    """The assignment of an attempt that still holds its task. Raises `StaleFence`, `TaskNotFound`."""
    with database.read() as session:
        row = read_held_task(session, uid, fence)
        attempts = select(AttemptRow, has_run()).where(AttemptRow.task_id == row.id, AttemptRow.fence == fence)
        attempt, did_run = session.execute(attempts.join(TaskRow, TaskRow.id == AttemptRow.task_id)).one()
        return build_assignment(row, sizes, attempt, has_run=did_run)


@repeated
def beat_task(database: Database, uid: str, fence: int, beat: Heartbeat) -> HeartbeatReply:
    """Extend the lease of an attempt, and answer what its holder must know.

    A task whose lease expired returns to its holder unless it was claimed again. Raises `StaleFence`,
    `TaskNotFound`.
    """
    with database.write() as session:
        row, now = lock_task_now(database, session, uid)
        check_fence(row, fence)
        if beat.phase is not Phase.PREPARING:
            note_begun(session, row)
        note_return(row)
        if beat.phase != row.phase:
            row.deadline_at = now + phase_limit(beat.phase, row.model_version.time_limit_s)
        if beat.is_ready and beat.phase is Phase.PREPARING:
            # How long the task before it takes is not its fault; `begin` sets a new one.
            row.deadline_at = None
        row.lease_owner = beat.consumer
        row.lease_until = now + LEASE
        if beat.phase is not Phase.PREPARING:
            row.started_at = row.started_at or now
            move_task(row, Status.RUNNING)
        elif row.status == Status.QUEUED:
            move_task(row, Status.LEASED)
        row.phase = beat.phase
        row.image = beat.image or row.image
        row.pull_percent = beat.pull_percent if beat.phase is Phase.PREPARING else None
        told = beat.progress if beat.phase is Phase.RUNNING else None
        row.progress, row.progress_text = (told.fraction, told.text or None) if told else (None, None)
        note_seen(session, beat.consumer, now)
        left = (row.deadline_at - now).total_seconds() if row.deadline_at else LEASE.total_seconds()
        reply = HeartbeatReply(cancel=row.cancel_at is not None, seconds_left=left)
    reach(Failpoint.BEAT_COMMITTED)
    return reply


def is_to_end(database: Database, uid: str, fence: int) -> bool:
    """Whether the owner of a held task asked for its end. Raises `StaleFence`, `TaskNotFound`."""
    with database.read() as session:
        return read_held_task(session, uid, fence, *HOLDER_ALONE).cancel_at is not None


def attempt_archive(database: Database, uid: str, fence: int, *, of_model: bool) -> StoredArchive:
    """The input of a held task, or its model's archive. Raises `StaleFence`, `TaskNotFound`."""
    with database.read() as session:
        row = read_held_task(session, uid, fence, joinedload(TaskRow.input))
        archive = stored_archive(row.model_version.archive if of_model else row.input)
        if archive is None:
            raise StaleFence("the archive of this attempt is no longer stored")
        return archive


def build_assignment(row: TaskRow, sizes: SizeLimits, attempt: AttemptRow, *, has_run: bool) -> Assignment:
    """What the holder of a task needs to know. Raises `StaleFence` if its input is no longer stored."""
    version = row.model_version
    task_input = view_archive(row.input)
    if task_input is None:
        raise StaleFence("the input of this task is no longer stored")
    return Assignment(
        uid=row.uid,
        fence=row.fence,
        attempt=row.attempts,
        lease_s=LEASE.total_seconds(),
        human_readable_id=version.model.human_readable_id,
        model_version=version.number,
        container_tag=version.container_tag,
        pinned_image=version.pinned_image,
        use_gpu=version.use_gpu,
        pull_policy=version.pull_policy,
        isolation=version.isolation,
        has_run=has_run,
        time_limit_s=version.time_limit_s,
        memory_limit_bytes=version.memory_limit_bytes,
        shared_memory_bytes=version.shared_memory_bytes,
        temporary_bytes=version.temporary_bytes,
        pids_limit=version.pids_limit,
        cpus=version.cpus,
        runtime=version.runtime,
        strict_output=version.strict_output,
        max_unpacked_bytes=sizes.max_unpacked_bytes,
        max_entries=sizes.max_entries,
        max_output_bytes=sizes.max_output_bytes,
        input=task_input,
        model_archive=view_archive(version.archive),
        is_ahead=attempt.is_ahead,
        replica_uid=attempt.replica_uid,
    )


def has_run() -> ColumnElement[bool]:
    """Whether a container of the task's version ran to its end before: only then its task has an exit code."""
    ended = _OTHER.ended_at.is_not(None), _OTHER.exit_code.is_not(None)
    return exists().where(_OTHER.model_version_id == TaskRow.model_version_id, *ended).correlate(TaskRow)
