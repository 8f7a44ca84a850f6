"""The tables as rows. Migrations create them, with triggers that prevent what must never happen."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, Double, ForeignKey, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from contract.schemas import Isolation, PullPolicy
from contract.statuses import Phase, Reason, Status
from private_api.columns import Base, Id, Instant, Word


class ArchiveRow(Base):
    """A zip at rest, visible because a committed row of models or tasks refers to it. Its content never changes."""

    __tablename__ = "archives"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(255), unique=True)
    """Path below the archive folder."""
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    owner: Mapped[str | None] = mapped_column(String(128))
    """Whose task's input or output it is. NULL of a task without an owner, and of a model's zip."""
    created_at: Mapped[datetime] = mapped_column(Instant)
    removed_at: Mapped[datetime | None] = mapped_column(Instant)
    """Set by retention or deletion, before the file is removed."""
    checked_at: Mapped[datetime | None] = mapped_column(Instant)
    """When its bytes were last read to see whether they are what was stored. NULL: never."""
    damaged_at: Mapped[datetime | None] = mapped_column(Instant)
    """Since when they are known not to be."""


class ModelRow(Base):
    """A registered model: a name and its versions. It exists while one of them is not deleted."""

    __tablename__ = "models"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    human_readable_id: Mapped[str] = mapped_column(String(128), unique=True)
    newest_version: Mapped[int] = mapped_column(Integer)
    """The number given last, to a version that may be deleted: no number is given twice."""
    default_version: Mapped[int | None] = mapped_column(Integer)
    """The version that the plain id means, which is neither retired nor deleted. NULL: the newest."""
    retired_at: Mapped[datetime | None] = mapped_column(Instant)
    """Since when no version of it takes new tasks."""
    owner: Mapped[str | None] = mapped_column(String(128))
    """Of the key that registered it first, or whom it was given to. NULL: nobody's."""
    restricted: Mapped[bool] = mapped_column(default=False)
    """Whether only its owner and its users may use it."""
    created_at: Mapped[datetime] = mapped_column(Instant)

    users: Mapped[list["ModelUserRow"]] = relationship(
        cascade="all, delete-orphan", order_by="ModelUserRow.owner", passive_deletes=True
    )


class ModelUserRow(Base):
    """An owner who may use a restricted model of another one."""

    __tablename__ = "model_users"

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), primary_key=True)
    owner: Mapped[str] = mapped_column(String(128), primary_key=True)


class ModelVersionRow(Base):
    """What a model was when a task was submitted; all that a run depends on is immutable."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("model_id", "number"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int] = mapped_column(Integer)
    container_tag: Mapped[str] = mapped_column(String(512))
    pin: Mapped[bool] = mapped_column(default=False)
    """Whether the digest that a registry gives the image is noted once it is known."""
    pinned_image: Mapped[str | None] = mapped_column(String(1024))
    """The image that every run is of, as `name@sha256:...`. NULL: what the tag stands for when it runs."""
    description: Mapped[str] = mapped_column(Text)
    use_gpu: Mapped[bool]
    pull_policy: Mapped[PullPolicy] = mapped_column(Word(16, PullPolicy))
    isolation: Mapped[Isolation] = mapped_column(Word(16, Isolation))
    time_limit_s: Mapped[int] = mapped_column(Integer)
    memory_limit_bytes: Mapped[int | None] = mapped_column(BigInteger)
    shared_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    temporary_bytes: Mapped[int | None] = mapped_column(BigInteger)
    pids_limit: Mapped[int | None] = mapped_column(Integer)
    cpus: Mapped[float | None] = mapped_column(Double)
    runtime: Mapped[str | None] = mapped_column(String(64))
    """The Engine's runtime for its containers. NULL: the Engine's default."""
    strict_output: Mapped[bool]
    archive_id: Mapped[int | None] = mapped_column(ForeignKey("archives.id"))
    created_at: Mapped[datetime] = mapped_column(Instant)
    retired_at: Mapped[datetime | None] = mapped_column(Instant)
    """Since when it takes no new tasks."""
    deleted_at: Mapped[datetime | None] = mapped_column(Instant)
    """It is hidden but for the tasks that it ran."""

    model: Mapped[ModelRow] = relationship(lazy="joined", innerjoin=True)
    archive: Mapped[ArchiveRow | None] = relationship(lazy="joined")


class TaskRow(Base):
    """A user's request. A terminal row keeps its outcome, and no fence ever falls: triggers see to both."""

    __tablename__ = "tasks"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    uid: Mapped[str] = mapped_column(String(64), unique=True)
    owner: Mapped[str | None] = mapped_column(String(128))
    """The owner of the key that submitted it. NULL without a key: whoever knows its uid may use the task."""
    idempotency_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    """For a task without an owner."""
    owner_idempotency_key: Mapped[str | None] = mapped_column(String(255))
    """For a task with an owner: each owner's keys are separate."""
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    use_gpu: Mapped[bool]
    """Copied from the model's version, because the claim's index needs it here."""
    priority: Mapped[int] = mapped_column(Integer, default=0)
    running_limit: Mapped[int | None] = mapped_column(BigInteger)
    """While as many of its owner's tasks are held, it is not claimed. 0: any number may be. NULL: the server's."""
    label: Mapped[str | None] = mapped_column(String(128))
    """What its owner calls the batch that it belongs to."""
    status: Mapped[Status] = mapped_column(Word(16, Status))
    phase: Mapped[Phase | None] = mapped_column(Word(16, Phase))
    pull_percent: Mapped[int | None] = mapped_column(Integer)
    """How much of the image the holder has pulled; NULL while it pulls none."""
    progress: Mapped[float | None] = mapped_column(Double)
    """How far the run is, between 0 and 1, as the model says. NULL: it has not said, or does not run."""
    progress_text: Mapped[str | None] = mapped_column(String(128))
    image: Mapped[str | None] = mapped_column(String(1024))
    """The image that the newest attempt's container is of, as `name@sha256:...` or by its id. NULL: not known."""
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
    forgotten_at: Mapped[datetime | None] = mapped_column(Instant)
    """Since when the row is a tombstone: nothing in it may name a patient."""
    rerun_of: Mapped[str | None] = mapped_column(String(64))
    """The uid of the task whose input it runs again."""
    input_id: Mapped[int] = mapped_column(ForeignKey("archives.id"))
    output_id: Mapped[int | None] = mapped_column(ForeignKey("archives.id"))
    reason: Mapped[Reason | None] = mapped_column(Word(32, Reason))
    detail: Mapped[str | None] = mapped_column(Text)
    exit_code: Mapped[int | None] = mapped_column(Integer)
    warnings: Mapped[str | None] = mapped_column(Text, deferred=True)
    """A list of sentences as JSON. NULL: none."""
    warning_count: Mapped[int] = mapped_column(Integer, default=0)
    """How many there were: more than are kept, it may be."""
    created_at: Mapped[datetime] = mapped_column(Instant)
    started_at: Mapped[datetime | None] = mapped_column(Instant)
    ended_at: Mapped[datetime | None] = mapped_column(Instant)

    model_version: Mapped[ModelVersionRow] = relationship(lazy="joined", innerjoin=True)
    input: Mapped[ArchiveRow] = relationship(foreign_keys=[input_id])
    output: Mapped[ArchiveRow | None] = relationship(foreign_keys=[output_id])


class Outcome(StrEnum):
    """How an attempt ended that ended its task with an output, or did not end it."""

    FINISHED = "finished"
    """Its output is the task's."""
    RELEASED = "released"
    """Its holder gave the task back, blameless. A release that counts has the reason `infrastructure`."""
    LOST = "lost"
    """Its lease expired and another attempt began, or its consumer's name changed hands."""


class AttemptRow(Base):
    """One execution of a task by a consumer: inserted by the claim, ended once, then never changed."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("task_id", "fence"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"))
    fence: Mapped[int] = mapped_column(BigInteger)
    consumer: Mapped[str] = mapped_column(String(200))
    gpu_uuid: Mapped[str | None] = mapped_column(String(200))
    replica_uid: Mapped[str | None] = mapped_column(String(64))
    """The replica of the same consumer that runs the task, if it has no container of its own."""
    is_ahead: Mapped[bool] = mapped_column(default=False)
    """Whether it has not begun, because another task still runs at its consumer."""
    image: Mapped[str | None] = mapped_column(String(1024))
    """What ran, once the attempt has ended; while it lasts, the task has it."""
    claimed_at: Mapped[datetime] = mapped_column(Instant)
    begun_at: Mapped[datetime | None] = mapped_column(Instant)
    """When it might begin, if it was prepared ahead. NULL for all others: they begin with the claim."""
    ended_at: Mapped[datetime | None] = mapped_column(Instant)
    outcome: Mapped[Outcome | Reason | None] = mapped_column(Word(32, Outcome, Reason))
    """A `Reason` where the attempt or the task failed."""
    detail: Mapped[str | None] = mapped_column(Text)


class OutboxRow(Base):
    """A bell to ring: added in the transaction that queues a task or wants a replica, deleted once the broker has
    confirmed it."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    queue: Mapped[str] = mapped_column(String(64))
    uid: Mapped[str] = mapped_column(String(64))
    due_at: Mapped[datetime] = mapped_column(Instant)


class ConsumerRow(Base):
    """A consumer, and when it was last seen."""

    __tablename__ = "consumers"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    owner: Mapped[str | None] = mapped_column(String(128))
    """The owner of the key that it first used, for good. NULL while it uses the service token."""
    gpu_uuid: Mapped[str | None] = mapped_column(String(200))
    host: Mapped[str | None] = mapped_column(String(255))
    """The name of the machine that runs its containers, as that machine says. NULL until it is known."""
    accepts_cpu_tasks: Mapped[bool]
    replica_slots: Mapped[int] = mapped_column(Integer, default=0)
    """How many replicas it can host at once."""
    looks_up_images: Mapped[bool] = mapped_column(default=False)
    """Whether it says of models' images what it finds."""
    guards_replicas: Mapped[bool] = mapped_column(default=True)
    """Whether replicas reach only what they are given there: without, it hosts none that runs tasks."""
    draining_at: Mapped[datetime | None] = mapped_column(Instant)
    """Since when it is to take nothing new. NULL unless an operator said so; only an operator ends it."""
    trouble: Mapped[str | None] = mapped_column(Text)
    """Why it takes nothing, as it said with its last claim. NULL if it is well."""
    free_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """What a task may fill of its disk, as it said with its last claim. NULL if it does not say."""
    process: Mapped[str | None] = mapped_column(String(64))
    """Which process registered last. NULL if that one did not say."""
    claim_number: Mapped[int] = mapped_column(BigInteger, default=0)
    """The highest number of that process's claims so far."""
    first_seen_at: Mapped[datetime] = mapped_column(Instant)
    seen_at: Mapped[datetime] = mapped_column(Instant)


class EventRow(Base):
    """One change of a task's status, written by a trigger, so that none goes unrecorded. Append-only."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"))
    at: Mapped[datetime] = mapped_column(Instant)
    old_status: Mapped[Status | None] = mapped_column(Word(16, Status))
    new_status: Mapped[Status] = mapped_column(Word(16, Status))
    fence: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[Reason | None] = mapped_column(Word(32, Reason))


class ApiKeyRow(Base):
    """A key. It stays when it is revoked, and only the SHA-256 of its secret is stored."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    """The public part of the key."""
    secret_sha256: Mapped[str] = mapped_column(String(64))
    owner: Mapped[str] = mapped_column(String(128))
    scopes: Mapped[str] = mapped_column(String(255))
    """Words of `contract.access.Scope`, separated by spaces."""
    quotas: Mapped[str | None] = mapped_column(Text)
    """Limits of its own as JSON, by words of `contract.quotas.Quota`, null for no limit. NULL: none of its own."""
    created_at: Mapped[datetime] = mapped_column(Instant)
    expires_at: Mapped[datetime | None] = mapped_column(Instant)
    revoked_at: Mapped[datetime | None] = mapped_column(Instant)
    last_used_at: Mapped[datetime | None] = mapped_column(Instant)
