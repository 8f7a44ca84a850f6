"""How a consumer gets a task and keeps it: the claim, the heartbeat, and the facts of an attempt."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from contract.errors import StaleFence
from contract.logging import log_task
from contract.schemas import ArchiveView, Assignment, ClaimRequest, Heartbeat, HeartbeatReply
from contract.statuses import Phase, Status
from private_api.database import Database
from private_api.deployments.occupancy import Claimable, hosted_by, may_claim
from private_api.models import view_archive
from private_api.tables import ArchiveRow, AttemptRow, TaskRow
from private_api.tasks.consumers import note_consumer, note_seen
from private_api.tasks.limits import LEASE, phase_limit
from private_api.tasks.rows import check_fence, end_attempts, lock_task, logger, move_task, read_held_task


@dataclass(frozen=True)
class SizeLimits:
    """What one task may move, in bytes."""

    max_unpacked_bytes: int
    max_output_bytes: int


def claim_task(database: Database, request: ClaimRequest, sizes: SizeLimits, *, owner: str | None) -> Assignment | None:
    """Give the consumer a task under a new fence: of the highest priority the one its bell named, else the oldest.

    None where nothing waits that it can run now: a GPU that a replica has is not free, unless the replica shares it or
    runs the task itself. Raises `PermissionDenied` where the consumer is not its `owner`'s.
    """
    with database.write() as session:
        now = database.now(session)
        note_consumer(session, request, now, owner)
        # From here on the consumer's row is locked: its claims, also those of replicas, come one after the other.
        session.flush()
        # After the wait for the lock: what was queued meanwhile is due.
        now = database.now(session)
        hosted = hosted_by(session, request.consumer)
        claimable = may_claim(session, request.consumer, hosted, request.replica_slots, now)
        for candidates in _candidates(request, claimable, now):
            if (task_id := _take(session, candidates, request.consumer, now)) is not None:
                row = session.get_one(TaskRow, task_id)
                # An earlier attempt whose lease expired can no longer come back.
                end_attempts(session, row, now, outcome="lost")
                session.add(
                    AttemptRow(
                        task_id=row.id,
                        fence=row.fence,
                        consumer=request.consumer,
                        gpu_uuid=request.gpu_uuid,
                        replica_uid=claimable.warm.get(row.model_version_id),
                        claimed_at=now,
                    )
                )
                row.deadline_at = now + phase_limit(Phase.PREPARING, row.model_version.time_limit_s)
                log_task(logger, row.uid).info("queued -> leased fence=%s consumer=%s", row.fence, request.consumer)
                return _assignment(session, row, sizes)
    return None


def show_assignment(database: Database, uid: str, fence: int, sizes: SizeLimits) -> Assignment:
    """The assignment of an attempt that still holds its task. Raises `StaleFence`, `TaskNotFound`."""
    with database.read() as session:
        return _assignment(session, read_held_task(session, uid, fence), sizes)


def beat_task(database: Database, uid: str, fence: int, beat: Heartbeat) -> HeartbeatReply:
    """Extend the lease of an attempt, and say what its holder must know.

    A task whose lease expired comes back to the same holder as long as nobody else claimed it. Raises `StaleFence`,
    `TaskNotFound`.
    """
    with database.write() as session:
        row = lock_task(session, uid)
        check_fence(row, fence)
        now = database.now(session)
        if beat.phase != row.phase:
            row.deadline_at = now + phase_limit(beat.phase, row.model_version.time_limit_s)
        row.lease_owner = beat.consumer
        row.lease_until = now + LEASE
        if beat.phase is not Phase.PREPARING:
            row.started_at = row.started_at or now
            move_task(row, Status.RUNNING)
        elif row.status == Status.QUEUED:
            move_task(row, Status.LEASED)
        row.phase = beat.phase
        note_seen(session, beat.consumer, now)
        left = (row.deadline_at - now).total_seconds() if row.deadline_at else LEASE.total_seconds()
        return HeartbeatReply(cancel=row.cancel_at is not None, seconds_left=left)


def attempt_archive(database: Database, uid: str, fence: int, *, of_model: bool) -> tuple[str, ArchiveView]:
    """Key and facts of the input, or the model's archive, of a held task. Raises `StaleFence`, `TaskNotFound`."""
    with database.read() as session:
        row = read_held_task(session, uid, fence)
        archive = row.model_version.archive if of_model else row.input
        view = view_archive(archive)
        if archive is None or view is None:
            raise StaleFence("the archive of this attempt is no longer stored")
        return archive.key, view


def _candidates(request: ClaimRequest, claimable: Claimable, now: datetime) -> list[Select[int]]:
    queued = select(TaskRow.id).where(
        TaskRow.status == Status.QUEUED, TaskRow.not_before <= now, TaskRow.cancel_at.is_(None)
    )
    # One look per kind keeps each a walk along the index; GPU work goes first where there is a GPU.
    kinds = ([queued.where(TaskRow.use_gpu.is_(True), claimable.gpu_tasks)] if request.gpu_uuid else []) + (
        [queued.where(TaskRow.use_gpu.is_(False))] if request.accepts_cpu_tasks else []
    )
    best = [kind.order_by(TaskRow.priority.desc(), TaskRow.not_before, TaskRow.id).limit(1) for kind in kinds]
    if request.uid is None:
        return best
    # A bell is heard in the order of bells, so it must not decide against a priority.
    first = [kind.with_only_columns(func.max(TaskRow.priority)).scalar_subquery() for kind in kinds]
    named = [
        kind.where(TaskRow.uid == request.uid, TaskRow.priority == highest)
        for kind, highest in zip(kinds, first, strict=True)
    ]
    return [*named, *best]


def _take(session: Session, candidates: Select[int], consumer: str, now: datetime) -> int | None:
    """One statement: of two consumers that want the same task, one gets it and the other skips it."""
    statement = (
        update(TaskRow)
        .where(TaskRow.id == candidates.with_for_update(skip_locked=True).scalar_subquery())
        .where(TaskRow.status == Status.QUEUED)
        .values(
            status=Status.LEASED,
            phase=Phase.PREPARING,
            fence=TaskRow.fence + 1,
            attempts=TaskRow.attempts + 1,
            lease_owner=consumer,
            lease_until=now + LEASE,
            started_at=None,
        )
        .returning(TaskRow.id)
        .execution_options(synchronize_session=False)
    )
    return session.execute(statement).scalar_one_or_none()


def _assignment(session: Session, row: TaskRow, sizes: SizeLimits) -> Assignment:
    version = row.model_version
    task_input = view_archive(session.get_one(ArchiveRow, row.input_id))
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
        use_gpu=version.use_gpu,
        pull_policy=version.pull_policy,
        isolation=version.isolation,
        time_limit_s=version.time_limit_s,
        memory_limit_bytes=version.memory_limit_bytes,
        max_unpacked_bytes=sizes.max_unpacked_bytes,
        max_output_bytes=sizes.max_output_bytes,
        input=task_input,
        model_archive=view_archive(version.archive),
        replica_uid=session.scalar(
            select(AttemptRow.replica_uid).where(AttemptRow.task_id == row.id, AttemptRow.fence == row.fence)
        ),
    )
