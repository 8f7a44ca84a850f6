"""The tables as rows. Migrations create them, with triggers that guard what must never happen."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, ForeignKey, Integer, String, Text, TypeDecorator, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Instant(TypeDecorator[datetime]):
    """A moment in UTC. SQLite stores no zone, so it is taken off on the way in and put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """UTC in; naive for SQLite."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware UTC out."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite numbers rows by itself only where the key is spelled INTEGER.
Id = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Base of all rows."""


class ArchiveRow(Base):
    """A zip at rest. It is visible because a committed row of models or tasks refers to it; never changed."""

    __tablename__ = "archives"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(255), unique=True)
    """Path below the archive folder."""
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(Instant)
    removed_at: Mapped[datetime | None] = mapped_column(Instant)
    """Set by retention or deletion, before the file goes."""


class ModelRow(Base):
    """A registered model: a name and its newest version."""

    __tablename__ = "models"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    human_readable_id: Mapped[str] = mapped_column(String(128), unique=True)
    newest_version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(Instant)


class ModelVersionRow(Base):
    """What a model was when a task was submitted; immutable."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("model_id", "number"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int] = mapped_column(Integer)
    container_tag: Mapped[str] = mapped_column(String(512))
    description: Mapped[str] = mapped_column(Text)
    use_gpu: Mapped[bool]
    pull_policy: Mapped[str] = mapped_column(String(16))
    isolation: Mapped[str] = mapped_column(String(16))
    time_limit_s: Mapped[int] = mapped_column(Integer)
    memory_limit_bytes: Mapped[int | None] = mapped_column(BigInteger)
    archive_id: Mapped[int | None] = mapped_column(ForeignKey("archives.id"))
    created_at: Mapped[datetime] = mapped_column(Instant)

    model: Mapped[ModelRow] = relationship(lazy="joined", innerjoin=True)
    archive: Mapped[ArchiveRow | None] = relationship(lazy="joined")


class TaskRow(Base):
    """A user's request. A terminal row never changes, its fence never falls: triggers refuse both."""

    __tablename__ = "tasks"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    uid: Mapped[str] = mapped_column(String(64), unique=True)
    owner: Mapped[str | None] = mapped_column(String(128))
    """Whose key submitted it. NULL where none was given: such a task is open to whoever knows its uid."""
    idempotency_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    """Of a task without an owner."""
    owner_idempotency_key: Mapped[str | None] = mapped_column(String(255))
    """Of a task with an owner: each owner has keys of its own."""
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    use_gpu: Mapped[bool]
    """Copied from the model's version: the claim's index needs it here."""
    priority: Mapped[int] = mapped_column(Integer, default=0)
    status: Mapped[str] = mapped_column(String(16))
    phase: Mapped[str | None] = mapped_column(String(16))
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    crashes: Mapped[int] = mapped_column(Integer, default=0)
    infrastructure_failures: Mapped[int] = mapped_column(Integer, default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[datetime | None] = mapped_column(Instant)
    not_before: Mapped[datetime] = mapped_column(Instant)
    deadline_at: Mapped[datetime | None] = mapped_column(Instant)
    cancel_at: Mapped[datetime | None] = mapped_column(Instant)
    deleted_at: Mapped[datetime | None] = mapped_column(Instant)
    input_id: Mapped[int] = mapped_column(ForeignKey("archives.id"))
    output_id: Mapped[int | None] = mapped_column(ForeignKey("archives.id"))
    reason: Mapped[str | None] = mapped_column(String(32))
    detail: Mapped[str | None] = mapped_column(Text)
    exit_code: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(Instant)
    started_at: Mapped[datetime | None] = mapped_column(Instant)
    ended_at: Mapped[datetime | None] = mapped_column(Instant)

    model_version: Mapped[ModelVersionRow] = relationship(lazy="joined", innerjoin=True)
    input: Mapped[ArchiveRow] = relationship(foreign_keys=[input_id])
    output: Mapped[ArchiveRow | None] = relationship(foreign_keys=[output_id])


class AttemptRow(Base):
    """One execution of a task by a consumer: written at the claim, its end added once, then never changed."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("task_id", "fence"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"))
    fence: Mapped[int] = mapped_column(BigInteger)
    consumer: Mapped[str] = mapped_column(String(200))
    gpu_uuid: Mapped[str | None] = mapped_column(String(200))
    replica_uid: Mapped[str | None] = mapped_column(String(64))
    """The replica of the same consumer that runs the task, where no container of its own does."""
    claimed_at: Mapped[datetime] = mapped_column(Instant)
    ended_at: Mapped[datetime | None] = mapped_column(Instant)
    outcome: Mapped[str | None] = mapped_column(String(32))
    detail: Mapped[str | None] = mapped_column(Text)


class OutboxRow(Base):
    """A bell to ring: written in the transaction that queues a task or wants a replica, deleted once the broker
    confirmed it."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    queue: Mapped[str] = mapped_column(String(64))
    uid: Mapped[str] = mapped_column(String(64))
    due_at: Mapped[datetime] = mapped_column(Instant)


class ConsumerRow(Base):
    """A consumer that asked for work, and when it last did."""

    __tablename__ = "consumers"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    owner: Mapped[str | None] = mapped_column(String(128))
    """Whose key it was first seen with; for good. NULL while it proves itself with the service token."""
    gpu_uuid: Mapped[str | None] = mapped_column(String(200))
    accepts_cpu_tasks: Mapped[bool]
    replica_slots: Mapped[int] = mapped_column(Integer, default=0)
    """How many replicas it hosts at once."""
    first_seen_at: Mapped[datetime] = mapped_column(Instant)
    seen_at: Mapped[datetime] = mapped_column(Instant)


class EventRow(Base):
    """One change of a task's status. A trigger writes it, so no change goes unrecorded; append-only."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"))
    at: Mapped[datetime] = mapped_column(Instant)
    old_status: Mapped[str | None] = mapped_column(String(16))
    new_status: Mapped[str] = mapped_column(String(16))
    fence: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str | None] = mapped_column(String(32))


class ApiKeyRow(Base):
    """A key that was made; it stays when it is revoked. Of its secret only the SHA-256 is here."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    """The public part of the key."""
    secret_sha256: Mapped[str] = mapped_column(String(64))
    owner: Mapped[str] = mapped_column(String(128))
    scopes: Mapped[str] = mapped_column(String(255))
    """Words of `contract.access.Scope`, with blanks between them."""
    created_at: Mapped[datetime] = mapped_column(Instant)
    expires_at: Mapped[datetime | None] = mapped_column(Instant)
    revoked_at: Mapped[datetime | None] = mapped_column(Instant)
    last_used_at: Mapped[datetime | None] = mapped_column(Instant)


class HeartbeatRow(Base):
    """When a loop of this service last ran: how it notices that it was away."""

    __tablename__ = "loop_heartbeats"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[datetime] = mapped_column(Instant)
