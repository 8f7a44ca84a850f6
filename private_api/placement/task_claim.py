"""How a consumer gets a task."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, select, true, update
from sqlalchemy.orm import Session, joinedload

from contract.claims import ClaimRequest
from contract.schemas import Assignment
from contract.statuses import Phase, Status
from kit.failpoints import reach
from kit.logging import log_task
from private_api.database import Database, repeated
from private_api.failpoints import Failpoint
from private_api.leases import LEASE
from private_api.placement.ahead import left_for_others, take_over_best
from private_api.placement.consumers import holdings, is_overtaken, note_consumer
from private_api.placement.evict import is_gpu_expected
from private_api.placement.occupancy import (
    Claimable,
    fits_on_disk,
    hosted_by,
    is_free_for_task,
    may_claim,
    taking_consumers,
)
from private_api.placement.surroundings import Surroundings, look_around
from private_api.placement.waiting import is_of_kind
from private_api.quotas.running import is_within_quota, may_run
from private_api.round_trips import add_later
from private_api.tables import AttemptRow, Outcome, TaskRow
from private_api.tasks.attempts import build_assignment, has_run
from private_api.tasks.give_back import give_back_unnamed
from private_api.tasks.limits import SizeLimits, phase_limit
from private_api.tasks.rows import end_attempts, logger, ring


@repeated
def claim_task(
    database: Database, request: ClaimRequest, sizes: SizeLimits, yield_after: timedelta, *, owner: str | None
) -> Assignment | None:
    """Give the consumer a task under a new fence: of the highest priority the one that its bell named, else the oldest.

    What the consumer was given before and does not hold goes back to the queue first, and so does what another one
    prepares ahead, if this one is free for it before. A claim ahead gets what no other consumer is free for.
    A task whose owner runs as many as its quota allows is passed over.
    Returns None if nothing waits that it can run now. A replica's GPU is free only if the replica shares it or runs
    the task itself; a consumer whose GPU is about to become free for a task takes none without a GPU.
    Raises `PermissionDenied` if the consumer belongs to another owner.
    """
    with database.write() as session:
        consumer, now = note_consumer(database, session, request, owner)
        # From here on the consumer's row is locked: its claims, of replicas too, run one after the other.
        consumer.trouble, consumer.free_bytes = request.health.trouble, request.health.free_bytes
        session.flush()
        if is_overtaken(consumer, request):
            _pass_bell_on(session, request.uid, now)
            return None
        around = look_around(database, session, request.consumer)
        if (holds := holdings(consumer, request)) is not None and around.holds_attempts:
            give_back_unnamed(session, request.consumer, holds, now)
            session.flush()
            around = look_around(database, session, request.consumer)
        if consumer.draining_at is not None or consumer.trouble is not None:
            _pass_bell_on(session, request.uid, now)
            return None
        # As of after the wait for the lock: tasks that were queued meanwhile are due.
        now = around.now
        hosted = hosted_by(session, request.consumer) if around.hosts_replicas else []
        if request.ahead:
            if (left := left_for_others(session, request, hosted, now)) is None:
                return None
            request = left
        claimable = Claimable(true(), {})
        if hosted or around.is_replica_wanted:
            claimable = may_claim(session, consumer, hosted, now, over=_over(request), ahead=request.ahead)
        is_kept_free = request.accepts_cpu_tasks and is_gpu_expected(session, hosted, now, yield_after)
        if is_kept_free:
            request = request.model_copy(update={"accepts_cpu_tasks": False})
        takes_over = around.is_any_ahead and not request.ahead
        if takes_over and (uid := take_over_best(session, request, claimable, now)) is not None:
            request = request.model_copy(update={"uid": uid})
            session.flush()
            around = look_around(database, session, request.consumer)
        taken = _take_best(database, session, request, claimable, around)
        if taken is None:
            if is_kept_free:
                _pass_bell_on(session, request.uid, now)
            return None
        row, did_run = taken
        # An earlier attempt whose lease expired can no longer come back.
        end_attempts(session, row, now, outcome=Outcome.LOST)
        attempt = AttemptRow(
            task_id=row.id,
            fence=row.fence,
            consumer=request.consumer,
            gpu_uuid=consumer.gpu_uuid,
            replica_uid=claimable.warm.get(row.model_version_id),
            is_ahead=request.ahead,
            claimed_at=now,
        )
        add_later(session, attempt)
        row.deadline_at = now + phase_limit(Phase.PREPARING, row.model_version.time_limit_s)
        log_task(logger, row.uid).info(
            "queued -> leased fence=%s consumer=%s%s", row.fence, request.consumer, " ahead" if request.ahead else ""
        )
        assignment = build_assignment(row, sizes, attempt, has_run=did_run)
    reach(Failpoint.CLAIM_COMMITTED)
    return assignment


def _over(request: ClaimRequest) -> list[str]:
    """The tasks of the consumer whose runs have ended."""
    return [attempt.uid for attempt in request.holds or () if attempt.is_delivering]


def _pass_bell_on(session: Session, uid: str | None, now: datetime) -> None:
    """Ring again the bell of a claim that gets nothing, if another consumer is free to hear it."""
    queued = select(TaskRow).where(TaskRow.uid == (uid or ""), TaskRow.status == Status.QUEUED)
    row = session.scalars(queued).one_or_none()
    if row is None:
        return
    others = taking_consumers(now).where(is_of_kind(use_gpu=row.use_gpu), is_free_for_task())
    if session.scalars(others.limit(1)).first() is not None:
        ring(session, row)


def _take_best(
    database: Database,
    session: Session,
    request: ClaimRequest,
    claimable: Claimable,
    around: Surroundings,
) -> tuple[TaskRow, bool] | None:
    """Take the best task. If other consumers took the last places of its owner's quota meanwhile, take another one.

    Returns it, and whether its version has run before.
    """
    within_quota = around.within_quota
    while True:
        candidates = _candidates(request, claimable, within_quota, around.now)
        attempt = session.begin_nested()
        ids = (_take(session, each, request.consumer, around.now) for each in candidates)
        task_id = next((found for found in ids if found is not None), None)
        if task_id is None:
            attempt.commit()
            return None
        statement = select(TaskRow, has_run()).where(TaskRow.id == task_id).options(joinedload(TaskRow.input))
        row, did_run = session.execute(statement, execution_options={"populate_existing": True}).one()
        if is_within_quota(database, session, row, around.running_limit):
            attempt.commit()
            return row, did_run
        attempt.rollback()
        within_quota = may_run(session)


def _candidates(
    request: ClaimRequest, claimable: Claimable, within_quota: ColumnElement[bool], now: datetime
) -> list[Select[int]]:
    queued = select(TaskRow.id).where(
        TaskRow.status == Status.QUEUED, TaskRow.not_before <= now, TaskRow.cancel_at.is_(None), within_quota
    )
    if request.health.free_bytes is not None:
        queued = queued.where(fits_on_disk(request.health.free_bytes))
    # One query per kind keeps each a walk along the index. GPU work goes first on a GPU.
    kinds = ([queued.where(TaskRow.use_gpu.is_(True), claimable.gpu_tasks)] if request.gpu_uuid else []) + (
        [queued.where(TaskRow.use_gpu.is_(False))] if request.accepts_cpu_tasks else []
    )
    best = [kind.order_by(TaskRow.priority.desc(), TaskRow.not_before, TaskRow.id).limit(1) for kind in kinds]
    if request.uid is None:
        return best
    # Bells arrive in their own order, so a bell must not overrule a priority.
    first = [kind.with_only_columns(TaskRow.priority).scalar_subquery() for kind in best]
    named = [
        kind.where(TaskRow.uid == request.uid, TaskRow.priority == highest)
        for kind, highest in zip(kinds, first, strict=True)
    ]
    return [*named, *best]


def _take(session: Session, candidates: Select[int], consumer: str, now: datetime) -> int | None:
    """Take a task in one statement: of two consumers that want the same one, the second skips it."""
    statement = (
        update(TaskRow)
        .where(TaskRow.id == candidates.with_for_update(skip_locked=True).scalar_subquery())
        .where(TaskRow.status == Status.QUEUED)
        .values(
            status=Status.LEASED,
            phase=Phase.PREPARING,
            pull_percent=None,
            progress=None,
            progress_text=None,
            image=None,
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
