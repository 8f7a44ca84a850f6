"""What the rules share: finding and locking rows, and the life of a replica.

Locks are taken in one order: consumer, deployment, replica. Code that cannot keep to it skips locked rows.
"""

import logging
import secrets
from datetime import datetime, timedelta

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from contract.broker import replica_queue_for
from contract.deployments import ReplicaReason, ReplicaStatus
from contract.errors import DeploymentNotFound, StaleFence
from contract.serving import ServingSpec, WireProtocol
from private_api.deployment_tables import DeploymentRow, ReplicaRow
from private_api.tables import ModelRow, OutboxRow

logger = logging.getLogger("private_api.deployments")

HOSTED = frozenset({ReplicaStatus.STARTING, ReplicaStatus.READY, ReplicaStatus.DRAINING})
"""Statuses in which a consumer holds the replica under a lease."""
COUNTED = frozenset({ReplicaStatus.WANTED, ReplicaStatus.STARTING, ReplicaStatus.READY})
"""Statuses in which the replica answers calls, or will."""

_TRANSITIONS = {
    ReplicaStatus.WANTED: {ReplicaStatus.STARTING, ReplicaStatus.ENDED},
    ReplicaStatus.STARTING: {ReplicaStatus.READY, ReplicaStatus.DRAINING, ReplicaStatus.ENDED},
    # One whose probe hears nothing good any more gets no new calls until it does.
    ReplicaStatus.READY: {ReplicaStatus.STARTING, ReplicaStatus.DRAINING, ReplicaStatus.ENDED},
    ReplicaStatus.DRAINING: {ReplicaStatus.ENDED},
    ReplicaStatus.ENDED: set(),
}


def named(human_readable_id: str) -> Select[DeploymentRow]:
    """The query for a model's deployment."""
    return select(DeploymentRow).join(DeploymentRow.model).where(ModelRow.human_readable_id == human_readable_id)


def find_deployment(session: Session, human_readable_id: str) -> DeploymentRow:
    """The deployment of a model. Raises `DeploymentNotFound`."""
    row = session.scalars(named(human_readable_id)).one_or_none()
    if row is None:
        raise DeploymentNotFound
    return row


def lock_deployment(session: Session, deployment_id: int | None, *, skip: bool = False) -> DeploymentRow | None:
    """The deployment, locked until the transaction ends. None if it was removed or, with `skip`, is locked."""
    if deployment_id is None:
        return None
    statement = select(DeploymentRow).where(DeploymentRow.id == deployment_id)
    return session.scalars(statement.with_for_update(of=DeploymentRow, skip_locked=skip)).one_or_none()


def read_replica(session: Session, uid: str) -> ReplicaRow:
    """The replica, without a lock. Raises `DeploymentNotFound` for a uid that this server never gave."""
    row = session.scalars(select(ReplicaRow).where(ReplicaRow.uid == uid)).one_or_none()
    if row is None:
        raise DeploymentNotFound("there is no such replica")
    return row


def lock_replica(session: Session, uid: str) -> ReplicaRow:
    """The replica, locked until the transaction ends. Raises `StaleFence`."""
    statement = select(ReplicaRow).where(ReplicaRow.uid == uid).with_for_update(of=ReplicaRow)
    row = session.scalars(statement.execution_options(populate_existing=True)).one_or_none()
    if row is None:
        raise StaleFence("there is no such replica")
    return row


def check_fence(row: ReplicaRow, fence: int) -> None:
    """Raises `StaleFence` unless the replica is hosted under `fence` now."""
    if row.fence != fence or row.status not in HOSTED:
        raise StaleFence(f"fence {fence} no longer holds this replica: it is {row.status} under fence {row.fence}")


def lock_live_replicas(session: Session, deployment_id: int) -> list[ReplicaRow]:
    """The replicas of a locked deployment that have not ended, oldest first, locked."""
    statement = (
        select(ReplicaRow)
        .where(ReplicaRow.deployment_id == deployment_id, ReplicaRow.ended_at.is_(None))
        .order_by(ReplicaRow.id)
        .with_for_update(of=ReplicaRow)
        .execution_options(populate_existing=True)
    )
    return list(session.scalars(statement))


def serving_of(row: DeploymentRow | ReplicaRow) -> ServingSpec:
    """The stored serving spec."""
    return ServingSpec.model_validate_json(row.serving)


def is_current(row: ReplicaRow, deployment: DeploymentRow) -> bool:
    """Whether the replica's container is the one that the deployment would start now."""
    has, wanted = serving_of(row), serving_of(deployment)
    if row.model_version_id != deployment.model_version_id or as_container_sees(has) != as_container_sees(wanted):
        return False
    # Its consumer goes on asking for what it was told when it claimed the replica.
    return row.status != ReplicaStatus.STARTING or _as_probe_sees(has) == _as_probe_sees(wanted)


def as_container_sees(serving: ServingSpec) -> tuple[object, ...]:
    """The settings whose change needs another container; all others concern only gateways and this service."""
    return (serving.port, serving.protocol, serving.readiness, serving.share_gpu, serving.serves_tasks)


def _as_probe_sees(serving: ServingSpec) -> tuple[object, ...]:
    """The settings by which a container is judged ready, beside those it sees itself."""
    if serving.protocol is WireProtocol.RAY:
        return (sorted(serving.applications),)
    if serving.protocol is WireProtocol.TENSORFLOW:
        return (sorted(serving.model_names), sorted(serving.unrouted_model_names))
    return ()


def want_replica(session: Session, deployment: DeploymentRow, now: datetime) -> ReplicaRow:
    """Add a replica that waits for a consumer, and its bell."""
    version, serving = deployment.model_version, serving_of(deployment)
    row = ReplicaRow(
        uid=secrets.token_hex(32),
        deployment_id=deployment.id,
        model_version=version,
        owner=deployment.owner,
        use_gpu=version.use_gpu,
        share_gpu=serving.share_gpu,
        serves_tasks=serving.serves_tasks,
        priority=serving.priority,
        serving=deployment.serving,
        status=ReplicaStatus.WANTED,
        fence=0,
        created_at=now,
    )
    session.add(row)
    session.add(OutboxRow(queue=replica_queue_for(row.use_gpu), uid=row.uid, due_at=now))
    logger.info("replica=%s -> wanted deployment=%s", row.uid, deployment.model.human_readable_id)
    return row


def move_replica(row: ReplicaRow, status: ReplicaStatus) -> None:
    """Change the status of a stored replica, and log it. Only a claim does so elsewhere, in its own statement."""
    old = row.status
    if status not in _TRANSITIONS[old]:
        raise AssertionError(f"replica {row.uid} cannot go from {old} to {status}")
    row.status = status
    why = f" reason={row.reason}" if row.reason else ""
    logger.info("replica=%s %s -> %s fence=%s%s", row.uid, old, status, row.fence, why)


def explain(row: DeploymentRow | ReplicaRow, summary: str | None, detail: str | None = None) -> None:
    """Note why a replica, or a deployment, stands where it does.

    `summary` is for everybody. `detail` is for the owner of the deployment and for operators, where it says more: what
    a container said may name a patient.
    """
    row.summary = summary or None
    row.detail = detail or row.summary


def drain_replica(row: ReplicaRow, reason: ReplicaReason, now: datetime) -> None:
    """Let a live replica leave: at once if nobody hosts it yet, otherwise once its calls are answered."""
    if row.status == ReplicaStatus.DRAINING:
        return
    if row.status == ReplicaStatus.WANTED:
        end_replica_row(row, reason, now)
        return
    row.reason = reason
    row.draining_at = now
    row.drain_until = now + timedelta(seconds=serving_of(row).drain_timeout_s)
    move_replica(row, ReplicaStatus.DRAINING)


def end_replica_row(
    row: ReplicaRow,
    reason: ReplicaReason,
    now: datetime,
    *,
    summary: str = "",
    detail: str = "",
    exit_code: int | None = None,
) -> None:
    """Make a replica terminal; see `explain`. One that was draining keeps the reason why it drained."""
    row.reason = row.reason or reason
    explain(row, summary, detail)
    row.exit_code = exit_code
    row.lease_until = None
    row.ended_at = now
    move_replica(row, ReplicaStatus.ENDED)
