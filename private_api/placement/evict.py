"""Eviction: idle replicas leave a GPU for waiting tasks of a higher priority."""

from datetime import datetime

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from contract.deployments import ReplicaReason, ReplicaStatus
from contract.statuses import Status
from private_api.database import Database
from private_api.deployment_tables import DeploymentRow, ReplicaRow
from private_api.deployments.gateways import read_load
from private_api.deployments.limits import EVICT_AFTER, IDLE_BEFORE_EVICTION
from private_api.deployments.rows import drain_replica, lock_deployment, lock_replica
from private_api.placement.occupancy import (
    closed_names,
    find_warm_replicas,
    hosted_by,
    is_free_for_task,
    taking_consumers,
)
from private_api.tables import AttemptRow, ConsumerRow, TaskRow


def evict_for_tasks(database: Database) -> bool:
    """Evict one idle replica if a GPU task of a higher priority waits and no GPU is free for it.

    The next step sees whether one was enough. Returns whether one was evicted.
    """
    with database.read() as session:
        chosen = _choose(session, database.now(session))
    if chosen is None:
        return False
    deployment_id, uid = chosen
    with database.write() as session:
        deployment = lock_deployment(session, deployment_id, skip=True)
        if deployment is None or _choose(session, database.now(session)) != chosen:
            return False
        row = lock_replica(session, uid)
        if row.status != ReplicaStatus.READY:
            return False
        drain_replica(row, ReplicaReason.EVICTED, database.now(session))
        # The next call, or the minimum of its deployment, wants it again; it then waits behind the task.
        deployment.wanted = max(0, deployment.wanted - 1)
        deployment.wanted_at = database.now(session)
        return True


def _choose(session: Session, now: datetime) -> tuple[int, str] | None:
    """The deployment and the uid of the replica to evict, or None if none has to leave or none may."""
    statement = select(TaskRow.priority, TaskRow.model_version_id).where(
        TaskRow.status == Status.QUEUED,
        TaskRow.use_gpu.is_(True),
        TaskRow.not_before <= now - EVICT_AFTER,
        TaskRow.cancel_at.is_(None),
    )
    task = session.execute(statement.order_by(TaskRow.priority.desc(), TaskRow.id).limit(1)).first()
    if task is None or _has_place(session, task.model_version_id, now):
        return None
    holds_task = exists().where(AttemptRow.consumer == ReplicaRow.consumer, AttemptRow.ended_at.is_(None))
    candidates = (
        select(ReplicaRow, DeploymentRow)
        .join(DeploymentRow, DeploymentRow.id == ReplicaRow.deployment_id)
        .where(
            ReplicaRow.status == ReplicaStatus.READY,
            ReplicaRow.use_gpu.is_(True),
            ReplicaRow.share_gpu.is_(False),
            ReplicaRow.priority < task.priority,
            ReplicaRow.ready_at <= now - IDLE_BEFORE_EVICTION,
            ~holds_task,
            # A GPU that it left there would go to nobody.
            ReplicaRow.consumer.not_in(closed_names()),
        )
        .order_by(ReplicaRow.priority, ReplicaRow.id)
    )
    load = read_load(session, now)
    for row, deployment in session.execute(candidates):
        name = deployment.model.human_readable_id
        called_at = max(at for at in (deployment.called_at, load.called_at.get(name), row.created_at) if at is not None)
        if not load.in_flight[name] and not load.replicas[row.uid] and called_at <= now - IDLE_BEFORE_EVICTION:
            return deployment.id, row.uid
    return None


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
