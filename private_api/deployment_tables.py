"""The tables of deployments as rows: what is kept warm, its replicas, and the gateways that call them."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from contract.deployments import ReplicaReason, ReplicaStatus
from private_api.columns import Base, Id, Instant, Word
from private_api.tables import ModelRow, ModelVersionRow


class ServedName(StrEnum):
    """What a name in a call names."""

    PREFIX = "prefix"
    APPLICATION = "application"
    MODEL = "model"


class DeploymentRow(Base):
    """A model that is kept warm. It is locked before it is changed or its replicas are decided about."""

    __tablename__ = "deployments"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), unique=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    owner: Mapped[str | None] = mapped_column(String(128))
    """The owner of the key that first deployed it."""
    key_id: Mapped[str | None] = mapped_column(String(16))
    """The key that deployed it last, or the one in whose place that came: its replicas call by its rights. NULL without
    a key, and of what a release deployed that noted none."""
    serving: Mapped[str] = mapped_column(Text)
    """A `contract.serving.ServingSpec` as JSON."""
    prefix: Mapped[str | None] = mapped_column(String(63), unique=True)
    application: Mapped[str] = mapped_column(String(128), unique=True)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    """How many replicas in a row ended by themselves."""
    not_before: Mapped[datetime | None] = mapped_column(Instant)
    """No replica starts before this time, because earlier ones ended."""
    detail: Mapped[str | None] = mapped_column(Text)
    """How the last failed replica ended, with what its container said: for the deployment's owner and for operators."""
    summary: Mapped[str | None] = mapped_column(Text)
    """The same in words of this server and of the consumer, for everybody. NULL beside a detail: a release wrote that
    which knew no summaries."""
    called_at: Mapped[datetime | None] = mapped_column(Instant)
    """When a call was last seen or waited for a replica."""
    wanted: Mapped[int] = mapped_column(Integer, default=0)
    """How many replicas calls need; kept for the idle timeout once they need fewer."""
    wanted_at: Mapped[datetime] = mapped_column(Instant)
    """When calls last needed that many."""
    created_at: Mapped[datetime] = mapped_column(Instant)
    updated_at: Mapped[datetime] = mapped_column(Instant)

    model: Mapped[ModelRow] = relationship(lazy="joined", innerjoin=True)
    model_version: Mapped[ModelVersionRow] = relationship(lazy="joined", innerjoin=True)


class DeploymentNameRow(Base):
    """A model name inside messages, and the one deployment that answers to it."""

    __tablename__ = "deployment_names"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    deployment_id: Mapped[int] = mapped_column(ForeignKey("deployments.id"))


class ServedNameRow(Base):
    """A name by which calls reached a model, and which leads to no other owner's model while that one exists."""

    __tablename__ = "served_names"

    kind: Mapped[ServedName] = mapped_column(Word(16, ServedName), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))

    model: Mapped[ModelRow] = relationship(lazy="joined", innerjoin=True)


class ReplicaRow(Base):
    """A long-lived container of a deployment. Once ended it never changes, and its fence never falls: triggers see to
    both."""

    __tablename__ = "replicas"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    uid: Mapped[str] = mapped_column(String(64), unique=True)
    deployment_id: Mapped[int | None] = mapped_column(ForeignKey("deployments.id"))
    """NULL once the deployment was removed."""
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    owner: Mapped[str | None] = mapped_column(String(128))
    use_gpu: Mapped[bool]
    share_gpu: Mapped[bool]
    serves_tasks: Mapped[bool]
    priority: Mapped[int] = mapped_column(Integer)
    serving: Mapped[str] = mapped_column(Text)
    """The deployment's when the container was made; settings that the container does not see follow the deployment."""
    status: Mapped[ReplicaStatus] = mapped_column(Word(16, ReplicaStatus))
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    consumer: Mapped[str | None] = mapped_column(String(200))
    """The consumer that hosts it or, once it has ended, that hosted it."""
    gpu_uuid: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[datetime | None] = mapped_column(Instant)
    address: Mapped[str | None] = mapped_column(String(255))
    drain_until: Mapped[datetime | None] = mapped_column(Instant)
    reason: Mapped[ReplicaReason | None] = mapped_column(Word(32, ReplicaReason))
    detail: Mapped[str | None] = mapped_column(Text)
    """Why it stands where it does, and `summary` the same for everybody: as with a deployment."""
    summary: Mapped[str | None] = mapped_column(Text)
    exit_code: Mapped[int | None] = mapped_column(Integer)
    yielded_at: Mapped[datetime | None] = mapped_column(Instant)
    """When the replica that it replaces left its GPU to the tasks that waited then. NULL: it replaces none that did."""
    created_at: Mapped[datetime] = mapped_column(Instant)
    ready_at: Mapped[datetime | None] = mapped_column(Instant)
    draining_at: Mapped[datetime | None] = mapped_column(Instant)
    ended_at: Mapped[datetime | None] = mapped_column(Instant)

    model_version: Mapped[ModelVersionRow] = relationship(lazy="joined", innerjoin=True)


class GatewayRow(Base):
    """A gateway process and its last report, a `contract.deployments.GatewayReport` as JSON."""

    __tablename__ = "gateways"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    report: Mapped[str] = mapped_column(Text)
    seen_at: Mapped[datetime] = mapped_column(Instant)
