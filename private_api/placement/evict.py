"""Eviction: replicas leave a GPU for waiting tasks of a higher priority, idle ones soon, those with calls in turns."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session

from contract.deployments import ReplicaReason, ReplicaStatus
from private_api.database import Database
from private_api.deployment_tables import DeploymentRow, ReplicaRow
from private_api.deployments.gateways import Load, read_load
from private_api.deployments.limits import EVICT_AFTER, IDLE_BEFORE_EVICTION
from private_api.deployments.rows import (
    drain_replica,
    is_current,
    lock_deployment,
    lock_replica,
    want_replica,
)
from private_api.placement.occupancy import (
    DISK_PER_INPUT,
    closed_names,
    find_warm_replicas,
    highest_waiting_task,
    hosted_by,
    is_free_for_task,
    is_waiting_gpu_task,
    taking_consumers,
)
from private_api.tables import AttemptRow, ConsumerRow, TaskRow


@dataclass(frozen=True)
class _Choice:
    """A replica that is to leave its GPU."""

    deployment_id: int
    uid: str
    yields: bool
    """Whether it has calls, and comes back after the tasks that wait now."""


def evict_for_tasks(database: Database, yield_after: timedelta) -> bool:
    """Evict one replica if GPU tasks of a higher priority wait and no GPU is free for them.

    One without calls leaves at once, one with calls when tasks have stood still for `yield_after`. The next step sees
    whether one was enough. Returns whether one was evicted.
    """
    with database.read() as session:
        chosen = _choose(session, database.now(session), yield_after)
    if chosen is None:
        return False
    with database.write() as session:
        deployment = lock_deployment(session, chosen.deployment_id, skip=True)
        if deployment is None or _choose(session, database.now(session), yield_after) != chosen:
            return False
        row = lock_replica(session, chosen.uid)
        if row.status != ReplicaStatus.READY:
            return False
        now = database.now(session)
        drain_replica(row, ReplicaReason.EVICTED, now)
        if chosen.yields and is_current(row, deployment):
            # It comes back after the tasks that wait now, not after those that come later.
            want_replica(session, deployment, now).yielded_at = now
        else:
            # The next call, or the minimum of its deployment, wants it again; it then waits behind the task.
            deployment.wanted = max(0, deployment.wanted - 1)
            deployment.wanted_at = now
        return True


def is_gpu_expected(session: Session, hosted: list[ReplicaRow], now: datetime, yield_after: timedelta) -> bool:
    """Whether a replica of a consumer that has no task leaves its GPU to a waiting one, or is just about to.

    A task without a GPU would keep the consumer from it, and one after the other for ever.
    """
    on_gpu = {row.uid: row for row in hosted if row.use_gpu and not row.share_gpu}
    leaving = [row.priority for row in on_gpu.values() if row.status == ReplicaStatus.DRAINING]
    if leaving:
        task = highest_waiting_task(session, now)
        return task is not None and task > min(leaving)
    chosen = _choose(session, now, yield_after) if on_gpu else None
    return chosen is not None and chosen.uid in on_gpu


def _choose(session: Session, now: datetime, yield_after: timedelta) -> _Choice | None:
    """The replica to evict, or None if none has to leave or none may."""
    load = read_load(session, now)
    task = _first_task(session, now, since=now - EVICT_AFTER)
    if task is None:
        return None
    if not _has_place(session, task.model_version_id, now):
        for row, deployment in _candidates(session, task, ready_before=now - IDLE_BEFORE_EVICTION):
            if _is_idle(row, deployment, load, now):
                return _Choice(deployment.id, row.uid, yields=False)
    stuck = _first_stuck_task(session, now, since=now - yield_after)
    if stuck is None or _has_place(session, stuck.model_version_id, now):
        return None
    for row, deployment in _candidates(session, stuck, ready_before=now - yield_after):
        return _Choice(deployment.id, row.uid, yields=True)
    return None


def _first_task(session: Session, now: datetime, *, since: datetime, below: int | None = None) -> TaskRow | None:
    """The first of the tasks that have waited for a GPU since then, all or those below a priority."""
    statement = select(TaskRow).where(is_waiting_gpu_task(session, now), TaskRow.not_before <= since)
    if below is not None:
        statement = statement.where(TaskRow.priority < below)
    order = (TaskRow.priority.desc(), TaskRow.not_before, TaskRow.id)
    return session.scalars(statement.order_by(*order).limit(1)).first()


def _first_stuck_task(session: Session, now: datetime, *, since: datetime) -> TaskRow | None:
    """The first of the tasks that have waited since then while none of their priority or below was given a GPU.

    What runs inside a replica was not.
    """
    if _first_task(session, now, since=since) is None:
        return None
    claimed = (
        select(func.min(TaskRow.priority))
        .join(AttemptRow, AttemptRow.task_id == TaskRow.id)
        .where(AttemptRow.claimed_at.between(since, now), AttemptRow.replica_uid.is_(None), TaskRow.use_gpu.is_(True))
    )
    return _first_task(session, now, since=since, below=session.scalar(claimed))


def _candidates(
    session: Session, task: TaskRow, *, ready_before: datetime
) -> Iterable[tuple[ReplicaRow, DeploymentRow]]:
    """The replicas that could leave their GPU to the task: of the lowest priority first, then the longest ready."""
    holds_task = exists().where(AttemptRow.consumer == ReplicaRow.consumer, AttemptRow.ended_at.is_(None))
    need = DISK_PER_INPUT * task.input.size_bytes
    roomy = select(ConsumerRow.name).where(or_(ConsumerRow.free_bytes.is_(None), ConsumerRow.free_bytes >= need))
    statement = (
        select(ReplicaRow, DeploymentRow)
        .join(DeploymentRow, DeploymentRow.id == ReplicaRow.deployment_id)
        .where(
            ReplicaRow.status == ReplicaStatus.READY,
            ReplicaRow.use_gpu.is_(True),
            ReplicaRow.share_gpu.is_(False),
            ReplicaRow.priority < task.priority,
            ReplicaRow.ready_at <= ready_before,
            ~holds_task,
            # A GPU that it left there would go to nobody, or not to this task.
            ReplicaRow.consumer.not_in(closed_names()),
            ReplicaRow.consumer.in_(roomy),
        )
        .order_by(ReplicaRow.priority, ReplicaRow.ready_at, ReplicaRow.id)
    )
    return session.execute(statement)


def _is_idle(row: ReplicaRow, deployment: DeploymentRow, load: Load, now: datetime) -> bool:
    name = deployment.model.human_readable_id
    called_at = max(at for at in (deployment.called_at, load.called_at.get(name), row.created_at) if at is not None)
    return not load.in_flight[name] and not load.replicas[row.uid] and called_at <= now - IDLE_BEFORE_EVICTION


def _has_place(session: Session, model_version_id: int, now: datetime) -> bool:
    """Whether a GPU is free for the task, or will be soon because a replica is draining."""
    leaving = select(ReplicaRow.id).where(
        ReplicaRow.status == ReplicaStatus.DRAINING,
        ReplicaRow.use_gpu.is_(True),
        ReplicaRow.consumer.not_in(closed_names()),
    )
    free = taking_consumers(now).where(ConsumerRow.gpu_uuid.is_not(None), is_free_for_task())
    if session.scalars(leaving.limit(1)).first() is not None or session.scalars(free.limit(1)).first() is not None:
        return True
    gpu_consumers = session.scalars(taking_consumers(now).where(ConsumerRow.gpu_uuid.is_not(None))).all()
    return any(
        model_version_id in find_warm_replicas(session, hosted_by(session, consumer.name), now)
        for consumer in gpu_consumers
    )
