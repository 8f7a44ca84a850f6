"""The consumers: registration of one per GPU, their owners, and when each was last seen."""

import logging
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from contract.claims import ClaimRequest, HeldAttempt
from contract.deployments import ReplicaReason
from contract.errors import Conflict, ConsumerNotFound, PermissionDenied
from contract.registration import Registered
from contract.schemas import ConsumerRegistration
from contract.statuses import TERMINAL
from private_api.database import Database, repeated
from private_api.deployment_tables import ReplicaRow
from private_api.deployments.rows import end_replica_row
from private_api.leases import LEASE
from private_api.server_tables import ServerRow
from private_api.tables import AttemptRow, ConsumerRow, Outcome, TaskRow
from private_api.tasks.ahead import prepared_ahead, take_from_holder

logger = logging.getLogger(__name__)


@repeated
def register_consumer(database: Database, request: ConsumerRegistration, *, owner: str | None) -> Registered:
    """Give a starting consumer its GPU, and tell it which server this is. One of the same name is replaced at once.

    Raises `Conflict` if another consumer has the GPU and was seen within the lease, and `PermissionDenied` if the name
    belongs to another owner.
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
        row, _ = note_consumer(database, session, request, owner)
        row.process, row.claim_number = request.process, 0
        return Registered(server_id=session.scalars(select(ServerRow.id)).one())


def note_consumer(
    database: Database, session: Session, request: ConsumerRegistration, owner: str | None
) -> tuple[ConsumerRow, datetime]:
    """Write what the consumer says of itself, and that it was seen. A name belongs to the first owner who uses it.

    Returns its row, locked, and the time.
    Raises `PermissionDenied` if the name belongs to another owner.
    """
    # Locked: of two owners who want the name, the second sees that it is taken.
    named = select(ConsumerRow, database.clock()).where(ConsumerRow.name == request.consumer)
    found = session.execute(named.with_for_update(of=ConsumerRow)).one_or_none()
    row, now = (None, database.now(session)) if found is None else (found[0], database.told(found[1]))
    if row is None:
        row = ConsumerRow(name=request.consumer, owner=owner, first_seen_at=now)
        session.add(row)
    elif row.owner != owner:
        _hand_over(session, row, owner, now)
    row.gpu_uuid = request.gpu_uuid
    # Not every call says it: a consumer learns it from its engine.
    row.host = request.host or row.host
    row.accepts_cpu_tasks = request.accepts_cpu_tasks
    row.replica_slots = request.replica_slots
    row.looks_up_images = request.looks_up_images
    row.guards_replicas = request.guards_replicas
    row.seen_at = now
    return row, now


def is_overtaken(row: ConsumerRow, request: ClaimRequest) -> bool:
    """Whether a later claim of the same process came first: nobody waits for the answer to this one any more.

    Notes the claim's number. A claim without a process, or of one that is not the last to register, has no order.
    """
    if not _is_registered(row, request):
        return False
    overtaken, row.claim_number = request.number <= row.claim_number, max(request.number, row.claim_number)
    return overtaken


def holdings(row: ConsumerRow, request: ClaimRequest) -> list[HeldAttempt] | None:
    """All that the consumer holds, or None if nobody can know: a claim may be older than what its consumer has now."""
    return request.holds if _is_registered(row, request) else None


def _is_registered(row: ConsumerRow, request: ClaimRequest) -> bool:
    return request.process is not None and request.process == row.process


@repeated
def set_draining(database: Database, name: str, *, is_draining: bool) -> None:
    """Let a consumer take nothing new, or again what there is. Raises `ConsumerNotFound`.

    What it prepares ahead goes back to the queue. Its claims are answered with nothing, so consumers of every release
    drain. It is kept until an operator ends it,
    whatever restarts.
    """
    with database.write() as session:
        # Locked: a claim comes before or after.
        row = session.get(ConsumerRow, name, with_for_update=True)
        if row is None:
            raise ConsumerNotFound(f"no consumer of the name {name!r} was ever seen")
        was_draining = row.draining_at is not None
        if was_draining == is_draining:
            return
        now = database.now(session)
        row.draining_at = now if is_draining else None
        if is_draining:
            for task in session.scalars(prepared_ahead().where(AttemptRow.consumer == name)):
                take_from_holder(session, task, now, f"consumer {name} drains")
    logger.info("consumer=%s %s", name, "is draining" if is_draining else "takes work again")


def check_attempt(database: Database, uid: str, fence: int, *, owner: str | None) -> str | None:
    """The consumer of an attempt, or None for an unknown attempt, which the call that follows answers.

    Raises `PermissionDenied` if the consumer belongs to another owner. This is a transaction of its own: the consumer
    of an attempt never changes while it holds its task.
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


def check_consumer(session: Session, name: str, owner: str | None) -> ConsumerRow:
    """The row of a consumer. Raises `ConsumerNotFound`, and `PermissionDenied` if it belongs to another owner."""
    row = session.get(ConsumerRow, name)
    if row is None:
        raise ConsumerNotFound(f"no consumer of the name {name!r} was ever seen")
    if row.owner != owner:
        raise _not_yours(name, row.owner)
    return row


def check_replica_host(database: Database, uid: str, *, owner: str | None) -> str | None:
    """The consumer that hosts a replica, or None. Raises `PermissionDenied` if it belongs to another owner."""
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
    """Give a name without an owner to the first owner who uses it, but nothing that was claimed under it before."""
    if row.owner is not None:
        raise _not_yours(row.name, row.owner)
    if row.seen_at > now - LEASE:
        raise PermissionDenied(
            f"the consumer {row.name} was at work with the service token a moment ago; its name can be had with a key "
            f"once it was silent for {LEASE.total_seconds():.0f} s"
        )
    row.owner = owner
    # After this silence its leases have expired, and the reaper requeues what it held.
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
        .values(ended_at=now, outcome=Outcome.LOST)
        .execution_options(synchronize_session=False)
    )
    hosted = select(ReplicaRow).where(ReplicaRow.consumer == row.name, ReplicaRow.ended_at.is_(None))
    for replica in session.scalars(hosted.with_for_update(of=ReplicaRow)):
        end_replica_row(replica, ReplicaReason.LOST, now, summary=f"the name {row.name} went to the owner {owner}")


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
