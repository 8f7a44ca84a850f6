"""Who the consumers are: their registration, one per GPU, and when each was last seen."""

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from contract.errors import Conflict
from contract.schemas import ConsumerRegistration
from private_api.database import Database
from private_api.tables import ConsumerRow
from private_api.tasks.limits import LEASE


def register_consumer(database: Database, request: ConsumerRegistration) -> None:
    """Let a consumer that starts have its GPU. One of the same name takes over at once.

    Raises `Conflict` naming another one that has the GPU and was seen within the lease.
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
        note_consumer(session, request, now)


def note_consumer(session: Session, request: ConsumerRegistration, now: datetime) -> None:
    """Write what the consumer says of itself, and that it was seen."""
    row = session.get(ConsumerRow, request.consumer)
    if row is None:
        row = ConsumerRow(name=request.consumer, first_seen_at=now)
        session.add(row)
    row.gpu_uuid = request.gpu_uuid
    row.accepts_cpu_tasks = request.accepts_cpu_tasks
    row.replica_slots = request.replica_slots
    row.seen_at = now


def note_seen(session: Session, consumer: str, now: datetime) -> None:
    """Write that the consumer was seen."""
    session.execute(update(ConsumerRow).where(ConsumerRow.name == consumer).values(seen_at=now))


def _holder(session: Session, request: ConsumerRegistration, now: datetime) -> ConsumerRow | None:
    if request.gpu_uuid is None:
        return None
    others = select(ConsumerRow).where(
        ConsumerRow.gpu_uuid == request.gpu_uuid,
        ConsumerRow.name != request.consumer,
        ConsumerRow.seen_at > now - LEASE,
    )
    return session.scalars(others.order_by(ConsumerRow.seen_at.desc()).limit(1)).first()
