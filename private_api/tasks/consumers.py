"""Who the consumers are: their registration, one per GPU, whose each is, and when each was last seen."""

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from contract.deployments import ReplicaReason
from contract.errors import Conflict, PermissionDenied
from contract.schemas import ConsumerRegistration
from contract.statuses import TERMINAL
from private_api.database import Database
from private_api.deployment_tables import ReplicaRow
from private_api.deployments.rows import end_replica_row
from private_api.tables import AttemptRow, ConsumerRow, TaskRow
from private_api.tasks.limits import LEASE


def register_consumer(database: Database, request: ConsumerRegistration, *, owner: str | None) -> None:
    """Let a consumer that starts have its GPU. One of the same name takes over at once.

    Raises `Conflict` naming another one that has the GPU and was seen within the lease, `PermissionDenied` where the
    name is not its `owner`'s.
    """
    with database.write() as session:
        if request.gpu_uuid is not None:
            database.serialize(session, f"gpu {request.gpu_uuid}")
        now = database.now(session)
        holder = _holder(session, request, now)
        if holder is not None:
            silent_s = max(0, round((now - holder.seen_at).total_seconds()))
            raise Conflict(
                f"GPU {request.gpu_uuid} is held by consumer {holder.name}, seen {silent_s} s ago; "
                f"it is free once that one was silent for {LEASE.total_seconds():.0f} s"
            )
        note_consumer(session, request, now, owner)


def note_consumer(session: Session, request: ConsumerRegistration, now: datetime, owner: str | None) -> None:
    """Write what the consumer says of itself, and that it was seen. A name belongs to the first owner of a key with it.

    Raises `PermissionDenied` where the name is somebody else's.
    """
    # Locked: of two owners that want the name, the second sees whose it is.
    row = session.get(ConsumerRow, request.consumer, with_for_update=True)
    if row is None:
        row = ConsumerRow(name=request.consumer, owner=owner, first_seen_at=now)
        session.add(row)
    elif row.owner != owner:
        _hand_over(session, row, owner, now)
    row.gpu_uuid = request.gpu_uuid
    row.accepts_cpu_tasks = request.accepts_cpu_tasks
    row.replica_slots = request.replica_slots
    row.seen_at = now


def note_seen(session: Session, consumer: str, now: datetime) -> None:
    """Write that the consumer was seen."""
    session.execute(update(ConsumerRow).where(ConsumerRow.name == consumer).values(seen_at=now))


def check_attempt(database: Database, uid: str, fence: int, *, owner: str | None) -> str | None:
    """The consumer of an attempt. None where there is no such attempt: what then is said, the call itself knows.

    Raises `PermissionDenied` where it is not a consumer of this owner. One short query, in a transaction of its own:
    whose an attempt is never changes while it holds its task.
    """
    attempts = (
        select(AttemptRow.consumer, ConsumerRow.owner)
        .join(TaskRow, TaskRow.id == AttemptRow.task_id)
        .outerjoin(ConsumerRow, ConsumerRow.name == AttemptRow.consumer)
        .where(TaskRow.uid == uid, AttemptRow.fence == fence)
    )
    with database.read() as session:
        found = session.execute(attempts).one_or_none()
    if found is None:
        return None
    if found.owner != owner:
        raise _not_yours(found.consumer, found.owner)
    consumer: str = found.consumer
    return consumer


def check_replica_host(database: Database, uid: str, *, owner: str | None) -> str | None:
    """The same for a replica: the consumer that hosts it. Raises `PermissionDenied`."""
    hosts = (
        select(ReplicaRow.consumer, ConsumerRow.owner)
        .outerjoin(ConsumerRow, ConsumerRow.name == ReplicaRow.consumer)
        .where(ReplicaRow.uid == uid)
    )
    with database.read() as session:
        found = session.execute(hosts).one_or_none()
    if found is None or found.consumer is None:
        return None
    if found.owner != owner:
        raise _not_yours(found.consumer, found.owner)
    consumer: str = found.consumer
    return consumer


def _hand_over(session: Session, row: ConsumerRow, owner: str | None, now: datetime) -> None:
    """Give a name without an owner to the first who comes with a key, but nothing that was claimed under it before."""
    if row.owner is not None:
        raise _not_yours(row.name, row.owner)
    if row.seen_at > now - LEASE:
        raise PermissionDenied(
            f"the consumer {row.name} was at work with the service token a moment ago; its name can be had with a key "
            f"once it was silent for {LEASE.total_seconds():.0f} s"
        )
    row.owner = owner
    # Silent for so long, it lost its leases: what it held is requeued by the reaper, if it is not yet.
    held = select(AttemptRow.task_id).where(AttemptRow.consumer == row.name, AttemptRow.ended_at.is_(None))
    session.execute(
        update(TaskRow)
        .where(TaskRow.id.in_(held), TaskRow.status.not_in(TERMINAL))
        .values(fence=TaskRow.fence + 1)
        .execution_options(synchronize_session=False)
    )
    session.execute(
        update(AttemptRow)
        .where(AttemptRow.consumer == row.name, AttemptRow.ended_at.is_(None))
        .values(ended_at=now, outcome="lost")
        .execution_options(synchronize_session=False)
    )
    hosted = select(ReplicaRow).where(ReplicaRow.consumer == row.name, ReplicaRow.ended_at.is_(None))
    for replica in session.scalars(hosted.with_for_update(of=ReplicaRow)):
        end_replica_row(replica, ReplicaReason.LOST, now, detail=f"the name {row.name} went to the owner {owner}")


def _not_yours(consumer: str, owner: str | None) -> PermissionDenied:
    if owner is None:
        return PermissionDenied(f"the consumer {consumer} proves itself with the service token, not with this key")
    return PermissionDenied(
        f"the consumer {consumer} belongs to the owner {owner}: give it a key of that owner, or another CONSUMER_NAME"
    )


def _holder(session: Session, request: ConsumerRegistration, now: datetime) -> ConsumerRow | None:
    if request.gpu_uuid is None:
        return None
    others = select(ConsumerRow).where(
        ConsumerRow.gpu_uuid == request.gpu_uuid,
        ConsumerRow.name != request.consumer,
        ConsumerRow.seen_at > now - LEASE,
    )
    return session.scalars(others.order_by(ConsumerRow.seen_at.desc()).limit(1)).first()
