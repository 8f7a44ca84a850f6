"""Preparing ahead: a consumer that runs a task fetches the next one meanwhile, so that its GPU does not wait for bytes.

Whoever can run a task first gets it: nothing is prepared ahead while another consumer is free for it, a consumer that
becomes free takes it over, and it begins only if nothing of a higher priority came in the meantime.
"""

from datetime import datetime

from sqlalchemy import ColumnElement, Select, exists, select
from sqlalchemy.orm import Session

from contract.claims import ClaimRequest
from contract.errors import StaleFence
from contract.schemas import Settled
from contract.statuses import Phase, Status
from kit.logging import log_task
from private_api.database import Database, repeated
from private_api.deployment_tables import ReplicaRow
from private_api.leases import note_seen
from private_api.placement.occupancy import (
    Claimable,
    fits_on_disk,
    highest_wanted_replica,
    hosted_by,
    is_free_for_task,
    taking_consumers,
)
from private_api.placement.waiting import is_of_kind
from private_api.quotas.running import may_run
from private_api.tables import AttemptRow, ConsumerRow, TaskRow
from private_api.tasks.ahead import prepared_ahead, take_from_holder
from private_api.tasks.limits import phase_limit
from private_api.tasks.rows import check_fence, lock_task, logger


def left_for_others(
    session: Session, request: ClaimRequest, hosted: list[ReplicaRow], now: datetime
) -> ClaimRequest | None:
    """What of a claim ahead its consumer may be given: only the kinds for which no other consumer is free.

    Returns None if it may be given nothing: it hosts replicas, or prepares a task already.
    """
    prepares = exists().where(
        AttemptRow.consumer == request.consumer, AttemptRow.ended_at.is_(None), AttemptRow.is_ahead
    )
    if hosted or session.scalar(select(prepares)):
        return None
    takes_gpu = request.gpu_uuid is not None and not _is_another_free(session, request, now, use_gpu=True)
    takes_cpu = request.accepts_cpu_tasks and not _is_another_free(session, request, now, use_gpu=False)
    if not takes_gpu and not takes_cpu:
        return None
    return request.model_copy(
        update={"gpu_uuid": request.gpu_uuid if takes_gpu else None, "accepts_cpu_tasks": takes_cpu}
    )


def take_over_best(session: Session, request: ClaimRequest, claimable: Claimable, now: datetime) -> str | None:
    """Queue a task again that another consumer prepares ahead, if it is the next one for this consumer.

    Returns its uid.
    """
    for use_gpu in ([True] if request.gpu_uuid else []) + ([False] if request.accepts_cpu_tasks else []):
        prepared = prepared_ahead().where(
            AttemptRow.consumer != request.consumer,
            TaskRow.not_before <= now,
            TaskRow.cancel_at.is_(None),
            *_may_have(request, claimable, use_gpu=use_gpu),
        )
        row = session.scalars(_in_turn(prepared).limit(1)).first()
        queued = session.scalars(
            _in_turn(_queued(now)).where(*_may_have(request, claimable, use_gpu=use_gpu), may_run(session)).limit(1)
        ).first()
        if row is not None and (queued is None or _turn(row) < _turn(queued)):
            take_from_holder(session, row, now, f"consumer {request.consumer} was free before")
            return row.uid
        if queued is not None:
            return None
    return None


@repeated
def begin_task(database: Database, uid: str, fence: int) -> Settled:
    """Let an attempt that was prepared ahead begin. Idempotent.

    It goes back to the queue, blameless, if a task or a replica of a higher priority came for its consumer meanwhile,
    or if that one drains. Raises `StaleFence`, `TaskNotFound`.
    """
    with database.write() as session:
        row, attempt, now = _lock_attempt(database, session, uid, fence)
        check_fence(row, fence)
        if attempt.is_ahead:
            if (why := _why_not(session, row, session.get_one(ConsumerRow, attempt.consumer), now)) is not None:
                take_from_holder(session, row, now, why)
                return Settled(status=row.status)
            attempt.is_ahead, attempt.begun_at = False, now
            row.deadline_at = now + phase_limit(Phase.PREPARING, row.model_version.time_limit_s)
            log_task(logger, uid).info("prepared ahead, may begin: fence=%s consumer=%s", fence, attempt.consumer)
        note_seen(session, attempt.consumer, now)
        return Settled(status=row.status)


def _lock_attempt(database: Database, session: Session, uid: str, fence: int) -> tuple[TaskRow, AttemptRow, datetime]:
    """A task and its attempt of this fence, locked, and the time. Raises `TaskNotFound`, `StaleFence`."""
    of_fence = (AttemptRow.task_id == TaskRow.id) & (AttemptRow.fence == fence)
    statement = select(TaskRow, AttemptRow, database.clock()).join(AttemptRow, of_fence).where(TaskRow.uid == uid)
    found = session.execute(statement.with_for_update(of=(TaskRow, AttemptRow))).one_or_none()
    if found is None:
        check_fence(lock_task(session, uid), fence)
        raise StaleFence
    row, attempt, now = found
    return row, attempt, database.told(now)


def _why_not(session: Session, row: TaskRow, consumer: ConsumerRow, now: datetime) -> str | None:
    if consumer.draining_at is not None:
        return f"consumer {consumer.name} drains"
    better = _queued(now).where(TaskRow.priority > row.priority, TaskRow.use_gpu.is_(row.use_gpu), may_run(session))
    if consumer.free_bytes is not None:
        better = better.where(fits_on_disk(consumer.free_bytes))
    if session.scalars(better.limit(1)).first() is not None:
        return "a task of a higher priority came before it began"
    hosted = hosted_by(session, consumer.name)
    wanted = highest_wanted_replica(session, consumer, hosted, now) if row.use_gpu else None
    if wanted is not None and wanted >= row.priority:
        return "a model that is kept warm gets the GPU before it"
    return None


def _is_another_free(session: Session, request: ClaimRequest, now: datetime, *, use_gpu: bool) -> bool:
    others = taking_consumers(now).where(
        ConsumerRow.name != request.consumer, is_of_kind(use_gpu=use_gpu), is_free_for_task()
    )
    return session.scalars(others.limit(1)).first() is not None


def _queued(now: datetime) -> Select[TaskRow]:
    return select(TaskRow).where(
        TaskRow.status == Status.QUEUED, TaskRow.not_before <= now, TaskRow.cancel_at.is_(None)
    )


def _may_have(request: ClaimRequest, claimable: Claimable, *, use_gpu: bool) -> list[ColumnElement[bool]]:
    """The conditions under which a consumer may be given a task of the kind."""
    free_bytes = request.health.free_bytes
    return [
        TaskRow.use_gpu.is_(use_gpu),
        *([claimable.gpu_tasks] if use_gpu else []),
        *([] if free_bytes is None else [fits_on_disk(free_bytes)]),
    ]


def _in_turn(tasks: Select[TaskRow]) -> Select[TaskRow]:
    return tasks.order_by(TaskRow.priority.desc(), TaskRow.not_before, TaskRow.id)


def _turn(row: TaskRow) -> tuple[int, datetime, int]:
    return -row.priority, row.not_before, row.id
