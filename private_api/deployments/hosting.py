"""What consumers do with replicas: claim one, keep it, say that it is ready and that it ended."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update

from contract.deployments import (
    ReplicaAssignment,
    ReplicaBeat,
    ReplicaBeatReply,
    ReplicaClaim,
    ReplicaEnd,
    ReplicaReason,
    ReplicaStatus,
)
from contract.errors import InvalidRequest, StaleFence
from contract.schemas import ArchiveView
from contract.tokens import Claims, replica_key, sign_token, stream_key
from private_api.database import Database
from private_api.deployment_tables import DeploymentRow, ReplicaRow
from private_api.deployments.gateways import is_let_go
from private_api.deployments.limits import RELEASE_PAUSE, backoff
from private_api.deployments.occupancy import (
    admits_replica,
    highest_waiting_task,
    holds_gpu_task,
    hosted_by,
    left_to_others,
)
from private_api.deployments.rows import (
    check_fence,
    end_replica_row,
    lock_deployment,
    lock_replica,
    logger,
    move_replica,
    read_replica,
    serving_of,
)
from private_api.models import view_archive
from private_api.tasks.consumers import note_consumer, note_seen
from private_api.tasks.limits import LEASE


@dataclass(frozen=True)
class Hosting:
    """What containers of replicas are told, and may unpack."""

    service_token: str
    """The root of the keys that sign their tokens; no container is told it."""
    gateway_address: str
    """`host:port` at which containers reach the gRPC gateway."""
    max_unpacked_bytes: int


def claim_replica(
    database: Database, claim: ReplicaClaim, hosting: Hosting, *, owner: str | None
) -> ReplicaAssignment | None:
    """Give the consumer a replica under a new fence: of those that may be on it the one of the highest priority.

    Among equals the one its bell named goes first, then the oldest. None where nothing waits that it may host, or that
    another consumer should host, for the replicas of a deployment to be on many hosts.
    Raises `PermissionDenied` where the consumer is not its `owner`'s.
    """
    with database.write() as session:
        now = database.now(session)
        note_consumer(session, claim, now, owner)
        # From here on the consumer's row is locked: its claims come one after the other.
        session.flush()
        hosted = hosted_by(session, claim.consumer)
        if len(hosted) >= claim.replica_slots:
            return None
        wanted = select(ReplicaRow.id).where(ReplicaRow.status == ReplicaStatus.WANTED)
        if left := left_to_others(session, claim, hosted, now):
            wanted = wanted.where(ReplicaRow.id.not_in(left))
        if not claim.accepts_cpu_tasks:
            wanted = wanted.where(ReplicaRow.use_gpu.is_(True))
        if claim.gpu_uuid is None or holds_gpu_task(session, claim.consumer):
            wanted = wanted.where(ReplicaRow.use_gpu.is_(False))
        elif not admits_replica(hosted, share_gpu=False):
            beside = ReplicaRow.share_gpu.is_(True) if admits_replica(hosted, share_gpu=True) else None
            wanted = wanted.where(
                ReplicaRow.use_gpu.is_(False) if beside is None else ReplicaRow.use_gpu.is_(False) | beside
            )
        if (task := highest_waiting_task(session, now)) is not None:
            wanted = wanted.where(ReplicaRow.use_gpu.is_(False) | (ReplicaRow.priority >= task))
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
        return _assignment(row, hosting)


def show_replica(database: Database, uid: str, fence: int, hosting: Hosting) -> ReplicaAssignment:
    """The assignment of a replica that is still its holder's. Raises `StaleFence`."""
    with database.read() as session:
        row = read_replica(session, uid)
        check_fence(row, fence)
        return _assignment(row, hosting)


def replica_archive(database: Database, uid: str, fence: int) -> tuple[str, ArchiveView]:
    """Key and facts of the model's zip. Raises `StaleFence`."""
    with database.read() as session:
        row = read_replica(session, uid)
        check_fence(row, fence)
        archive = row.model_version.archive
        view = view_archive(archive)
        if archive is None or view is None:
            raise StaleFence("the archive of this replica's model is no longer stored")
        return archive.key, view


def beat_replica(database: Database, uid: str, fence: int, beat: ReplicaBeat) -> tuple[ReplicaBeatReply, bool]:
    """Extend the lease, and say whether the container should end; and whether it became ready just now.

    Once ready it stays so: its container ends where it does not answer any more. Raises `StaleFence`,
    `InvalidRequest`.
    """
    if beat.ready and not beat.address:
        raise InvalidRequest("address: a replica that is ready needs one")
    with database.write() as session:
        row = lock_replica(session, uid)
        check_fence(row, fence)
        now = database.now(session)
        row.lease_until = now + LEASE
        became_ready = beat.ready and row.status == ReplicaStatus.STARTING
        if beat.ready:
            row.address = beat.address
        if became_ready:
            row.ready_at = now
            move_replica(row, ReplicaStatus.READY)
        note_seen(session, beat.consumer, now)
        stop = False
        if row.status == ReplicaStatus.DRAINING and row.drain_until is not None:
            stop = row.drain_until <= now or is_let_go(session, row, now)
        return ReplicaBeatReply(stop=stop), became_ready


def end_replica(database: Database, uid: str, fence: int, end: ReplicaEnd) -> None:
    """The container is no more. Repeating it changes nothing. Raises `StaleFence`.

    Where the model is to blame, the deployment waits before its next start, longer each time.
    """
    with database.write() as session:
        deployment = lock_deployment(session, read_replica(session, uid).deployment_id)
        row = lock_replica(session, uid)
        if row.status == ReplicaStatus.ENDED and row.fence == fence:
            return
        check_fence(row, fence)
        now = database.now(session)
        was_leaving = row.status == ReplicaStatus.DRAINING
        end_replica_row(row, end.reason, now, detail=end.detail, exit_code=end.exit_code)
        note_seen(session, end.consumer, now)
        if deployment is None or was_leaving:
            return
        if end.reason is ReplicaReason.RELEASED:
            pause = now + RELEASE_PAUSE
            deployment.not_before = max(pause, deployment.not_before or pause)
        elif end.reason.is_failure and row.model_version_id == deployment.model_version_id:
            _note_failure(deployment, end, now)


def _note_failure(deployment: DeploymentRow, end: ReplicaEnd, now: datetime) -> None:
    deployment.failures += 1
    deployment.not_before = now + backoff(deployment.failures)
    code = "" if end.exit_code is None else f", exit code {end.exit_code}"
    deployment.detail = f"{end.reason}{code}" + (f": {end.detail}" if end.detail else "")
    logger.warning(
        "deployment=%s failed %s times in a row, the next start is at %s: %s%s",
        deployment.model.human_readable_id,
        deployment.failures,
        deployment.not_before.isoformat(timespec="seconds"),
        end.reason,
        code,
    )


def _assignment(row: ReplicaRow, hosting: Hosting) -> ReplicaAssignment:
    version, name = row.model_version, row.model_version.model.human_readable_id
    return ReplicaAssignment(
        uid=row.uid,
        fence=row.fence,
        lease_s=LEASE.total_seconds(),
        human_readable_id=name,
        model_version=version.number,
        container_tag=version.container_tag,
        use_gpu=version.use_gpu,
        pull_policy=version.pull_policy,
        isolation=version.isolation,
        memory_limit_bytes=version.memory_limit_bytes,
        max_unpacked_bytes=hosting.max_unpacked_bytes,
        model_archive=view_archive(version.archive),
        serving=serving_of(row),
        environment={
            "DEPLOYMENT": name,
            "REPLICA_UID": row.uid,
            "MODEL_DIR": "/model",
            "GRPC_GATEWAY": hosting.gateway_address,
            "GATEWAY_TOKEN": sign_token(replica_key(hosting.service_token), Claims(row.uid, row.owner, None)),
            "STREAM_TOKEN_KEY": stream_key(hosting.service_token, name).hex(),
            "REDHARE_MODEL_NAME": name,
            "REDHARE_MODEL_PATH": "/model",
        },
    )
