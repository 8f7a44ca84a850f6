"""How a consumer gets a replica to host."""

from sqlalchemy import select, update

from contract.deployments import ReplicaAssignment, ReplicaClaim, ReplicaStatus
from private_api.database import Database, repeated
from private_api.deployment_tables import ReplicaRow
from private_api.deployments.replicas import Hosting, build_assignment
from private_api.deployments.rows import logger
from private_api.leases import LEASE
from private_api.placement.consumers import note_consumer
from private_api.placement.occupancy import (
    admits_replica,
    goes_first,
    highest_waiting_task,
    holds_gpu_task,
    hosted_by,
    left_to_others,
)


@repeated
def claim_replica(
    database: Database, claim: ReplicaClaim, hosting: Hosting, *, owner: str | None
) -> ReplicaAssignment | None:
    """Give the consumer a replica under a new fence: the one of the highest priority that it may host.

    Among equals the one that its bell named goes first, then the oldest. Returns None if nothing waits that it may
    host, or if another consumer should host it, so that the replicas of a deployment are spread over hosts.
    Raises `PermissionDenied` if the consumer belongs to another owner.
    """
    with database.write() as session:
        consumer, now = note_consumer(database, session, claim, owner)
        # From here on the consumer's row is locked: its claims run one after the other.
        session.flush()
        hosted = hosted_by(session, claim.consumer)
        if consumer.draining_at is not None or consumer.trouble is not None or len(hosted) >= claim.replica_slots:
            return None
        wanted = select(ReplicaRow.id).where(ReplicaRow.status == ReplicaStatus.WANTED)
        if left := left_to_others(session, claim, hosted, now):
            wanted = wanted.where(ReplicaRow.id.not_in(left))
        if not claim.guards_replicas:
            wanted = wanted.where(ReplicaRow.serves_tasks.is_(False))
        if not claim.accepts_cpu_tasks:
            wanted = wanted.where(ReplicaRow.use_gpu.is_(True))
        if claim.gpu_uuid is None or holds_gpu_task(session, claim.consumer):
            wanted = wanted.where(ReplicaRow.use_gpu.is_(False))
        elif not admits_replica(hosted, share_gpu=False):
            beside = ReplicaRow.share_gpu.is_(True) if admits_replica(hosted, share_gpu=True) else None
            wanted = wanted.where(
                ReplicaRow.use_gpu.is_(False) if beside is None else ReplicaRow.use_gpu.is_(False) | beside
            )
        if (task := highest_waiting_task(session, now, consumer.free_bytes)) is not None:
            is_before = (ReplicaRow.priority >= task) | goes_first(session, now, consumer.free_bytes)
            wanted = wanted.where(ReplicaRow.use_gpu.is_(False) | is_before)
        order = (ReplicaRow.priority.desc(), (ReplicaRow.uid == (claim.uid or "")).desc(), ReplicaRow.id)
        best = wanted.order_by(*order).limit(1).with_for_update(skip_locked=True)
        statement = (
            update(ReplicaRow)
            .where(ReplicaRow.id == best.scalar_subquery(), ReplicaRow.status == ReplicaStatus.WANTED)
            .values(
                status=ReplicaStatus.STARTING,
                fence=ReplicaRow.fence + 1,
                consumer=claim.consumer,
                gpu_uuid=claim.gpu_uuid,
                lease_until=now + LEASE,
                summary=None,
                detail=None,
            )
            .returning(ReplicaRow.id)
            .execution_options(synchronize_session=False)
        )
        replica_id = session.execute(statement).scalar_one_or_none()
        if replica_id is None:
            return None
        row = session.get_one(ReplicaRow, replica_id, populate_existing=True)
        logger.info("replica=%s wanted -> starting fence=%s consumer=%s", row.uid, row.fence, claim.consumer)
        return build_assignment(row, hosting)
