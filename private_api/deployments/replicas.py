"""The replica that a consumer hosts: its assignment, its archive, its heartbeat and its end."""

from dataclasses import dataclass
from datetime import datetime

from contract.deployments import (
    ReplicaAssignment,
    ReplicaBeat,
    ReplicaBeatReply,
    ReplicaEnd,
    ReplicaReason,
    ReplicaStatus,
)
from contract.errors import InvalidRequest, StaleFence
from contract.tokens import Claims, replica_key, sign_token, stream_key
from contract.zip_rules import MAX_ENTRIES
from private_api.archives import StoredArchive
from private_api.database import Database, repeated
from private_api.deployment_tables import DeploymentRow, ReplicaRow
from private_api.deployments.gateways import is_let_go, read_load
from private_api.deployments.limits import RELEASE_PAUSE, backoff
from private_api.deployments.rows import (
    check_fence,
    end_replica_row,
    explain,
    lock_deployment,
    lock_replica,
    logger,
    move_replica,
    read_replica,
    serving_of,
)
from private_api.leases import LEASE, note_seen
from private_api.models import stored_archive, view_archive


@dataclass(frozen=True)
class Hosting:
    """What every container of a replica is given."""

    service_token: str
    """The root of the keys that sign their tokens; no container gets it."""
    gateway_address: str
    """`host:port` at which containers reach the gRPC gateway."""
    max_unpacked_bytes: int
    max_entries: int = MAX_ENTRIES


def show_replica(database: Database, uid: str, fence: int, hosting: Hosting) -> ReplicaAssignment:
    """The assignment of a replica that this fence still holds. Raises `StaleFence`, `DeploymentNotFound`."""
    with database.read() as session:
        row = read_replica(session, uid)
        check_fence(row, fence)
        return build_assignment(row, hosting)


def replica_archive(database: Database, uid: str, fence: int) -> StoredArchive:
    """The model's zip. Raises `StaleFence`, `DeploymentNotFound`."""
    with database.read() as session:
        row = read_replica(session, uid)
        check_fence(row, fence)
        archive = stored_archive(row.model_version.archive)
        if archive is None:
            raise StaleFence("the archive of this replica's model is no longer stored")
        return archive


@repeated
def beat_replica(database: Database, uid: str, fence: int, beat: ReplicaBeat) -> tuple[ReplicaBeatReply, bool]:
    """Extend the lease. Returns whether the container should end, and whether it just became ready, or silent.

    A replica stays ready until its host says that it is silent: one that adopts it has not asked it yet. Raises
    `StaleFence`, `InvalidRequest`.
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
        fell_silent = beat.silent and row.status == ReplicaStatus.READY
        if became_ready:
            row.ready_at = now
            explain(row, None)
            move_replica(row, ReplicaStatus.READY)
        elif fell_silent:
            move_replica(row, ReplicaStatus.STARTING)
        if row.status == ReplicaStatus.STARTING:
            summary = "not ready any more" if beat.silent else "not ready yet"
            explain(row, summary if beat.detail else None, f"{summary}: {beat.detail}" if beat.detail else None)
        note_seen(session, beat.consumer, now)
        stop = False
        if row.status == ReplicaStatus.DRAINING and row.drain_until is not None:
            stop = row.drain_until <= now or is_let_go(session, row, now)
        in_flight = read_load(session, now).replicas[row.uid] if beat.silent else None
        return ReplicaBeatReply(stop=stop, in_flight=in_flight), became_ready or fell_silent


@repeated
def end_replica(database: Database, uid: str, fence: int, end: ReplicaEnd) -> None:
    """Note that the container has ended. Idempotent. Raises `StaleFence`, `DeploymentNotFound`.

    If the model is to blame, the deployment waits before its next start, longer each time.
    """
    with database.write() as session:
        deployment = lock_deployment(session, read_replica(session, uid).deployment_id)
        row = lock_replica(session, uid)
        if row.status == ReplicaStatus.ENDED and row.fence == fence:
            return
        check_fence(row, fence)
        now = database.now(session)
        was_leaving = row.status == ReplicaStatus.DRAINING
        # A consumer of a release before this one says both in one.
        summary = end.summary or (_name_end(end) if end.detail else "")
        end_replica_row(row, end.reason, now, summary=summary, detail=end.detail, exit_code=end.exit_code)
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
    name = _name_end(end)
    explain(deployment, *(f"{name}: {said}" if said else name for said in (end.summary, end.detail)))
    logger.warning(
        "deployment=%s failed %s times in a row, the next start is at %s: %s",
        deployment.model.human_readable_id,
        deployment.failures,
        deployment.not_before.isoformat(timespec="seconds"),
        name,
    )


def _name_end(end: ReplicaEnd) -> str:
    return end.reason if end.exit_code is None else f"{end.reason}, exit code {end.exit_code}"


def build_assignment(row: ReplicaRow, hosting: Hosting) -> ReplicaAssignment:
    """What the host of a replica needs to know."""
    version, name = row.model_version, row.model_version.model.human_readable_id
    return ReplicaAssignment(
        uid=row.uid,
        fence=row.fence,
        lease_s=LEASE.total_seconds(),
        human_readable_id=name,
        model_version=version.number,
        container_tag=version.container_tag,
        pinned_image=version.pinned_image,
        use_gpu=version.use_gpu,
        pull_policy=version.pull_policy,
        isolation=version.isolation,
        memory_limit_bytes=version.memory_limit_bytes,
        shared_memory_bytes=version.shared_memory_bytes,
        temporary_bytes=version.temporary_bytes,
        pids_limit=version.pids_limit,
        cpus=version.cpus,
        runtime=version.runtime,
        max_unpacked_bytes=hosting.max_unpacked_bytes,
        max_entries=hosting.max_entries,
        model_archive=view_archive(version.archive),
        serving=serving_of(row),
        environment={
            "DEPLOYMENT": name,
            "REPLICA_UID": row.uid,
            "MODEL_DIR": "/model",
            "GRPC_GATEWAY": hosting.gateway_address,
            "GATEWAY_TOKEN": sign_token(
                replica_key(hosting.service_token), Claims(row.uid, row.owner, None, is_inside=True)
            ),
            "STREAM_TOKEN_KEY": stream_key(hosting.service_token, name).hex(),
            "REDHARE_MODEL_NAME": name,
            "REDHARE_MODEL_VERSION": str(row.model_version.number),
            "REDHARE_MODEL_PATH": "/model",
        },
    )
