"""Deployments and replicas as services exchange them: for operators to see, consumers to run, gateways to route by.

A *deployment* is a model with a serving description; a *replica* is one container of it. Durations are seconds.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from contract.schemas import ConsumerRegistration, Message, Query, RunAssignment
from contract.serving import ServingSpec


class ReplicaStatus(StrEnum):
    """The state of a replica."""

    WANTED = "wanted"
    """Waits for a consumer."""
    STARTING = "starting"
    """A consumer holds it; its container is not ready yet."""
    READY = "ready"
    """Answers calls."""
    DRAINING = "draining"
    """Gets no new calls; ends once its open ones are answered."""
    ENDED = "ended"
    """Has ended; its row says why."""


class ReplicaReason(StrEnum):
    """Why a replica ended: a closed list that operators can rely on."""

    SURPLUS = "surplus"
    """Nobody needed it any more: the idle timeout passed, a new version came, or its deployment was removed."""
    EVICTED = "evicted"
    """Waiting tasks of a higher priority needed its GPU."""
    CONTAINER_ENDED = "container_ended"
    NOT_READY = "not_ready"
    IMAGE_NOT_FOUND = "image_not_found"
    MODEL_REJECTED = "model_rejected"
    LOST = "lost"
    """Its consumer stopped answering."""
    RELEASED = "released"
    """Its consumer was stopped, or failed for a reason that the model did not cause."""

    @property
    def is_failure(self) -> bool:
        """Whether the model's container is to blame, so that the next start has to wait."""
        return self in _FAILURES


_FAILURES = frozenset(
    {
        ReplicaReason.CONTAINER_ENDED,
        ReplicaReason.NOT_READY,
        ReplicaReason.IMAGE_NOT_FOUND,
        ReplicaReason.MODEL_REJECTED,
    }
)


class DeploymentQuery(Query):
    """The query of `GET /api/deployments/`."""

    limit: Annotated[int, Field(ge=1, le=500)] = 100
    after: Annotated[str | None, Field(max_length=128, description="The last id of the page before.")] = None


class ReplicaView(Message):
    """One container of a deployment."""

    uid: str
    model_version: int
    status: ReplicaStatus
    reason: ReplicaReason | None = None
    summary: str | None = Field(None, description="Why it stands where it does, for everybody.")
    detail: str | None = Field(
        None, description="The same, for the deployment's owner and operators with what the container said."
    )
    consumer: str | None = None
    gpu_uuid: str | None = None
    address: str | None = Field(None, description="`host:port` on the replicas' network, once it is ready.")
    in_flight: int = Field(0, description="Calls that gateways have open on it.")
    created_at: datetime
    ready_at: datetime | None = None
    ended_at: datetime | None = None


class DeploymentStatus(StrEnum):
    """The state of a deployment in one word."""

    IDLE = "idle"
    """Nobody calls it and none is kept warm: the first call starts a replica."""
    STARTING = "starting"
    READY = "ready"
    """At least one replica answers."""
    FAILING = "failing"
    """Its replicas end by themselves; `detail` says why, `next_start_at` when the next one starts."""


class DeploymentView(Message):
    """A deployment and its replicas: those that live and the last few that ended."""

    human_readable_id: str
    model_version: int
    owner: str | None = None
    serving: ServingSpec
    status: DeploymentStatus
    summary: str | None = Field(None, description="Why it fails, or what a replica waits for, for everybody.")
    detail: str | None = Field(None, description="The same, for its owner and operators with what a container said.")
    failures: int = Field(description="Replicas in a row that ended by themselves.")
    next_start_at: datetime | None = None
    replicas: list[ReplicaView]
    created_at: datetime
    updated_at: datetime


class ReplicaClaim(ConsumerRegistration):
    """A consumer asks for a replica to host."""

    uid: str | None = Field(None, description="The replica that the bell named; it goes first.")


class ReplicaAssignment(RunAssignment):
    """All a consumer needs to know to run one replica."""

    serving: ServingSpec
    environment: dict[str, str] = Field(description="Variables of the container: tokens and names of the platform.")


class ReplicaBeat(Message):
    """The holder lives and says how far the container is."""

    consumer: str
    ready: bool
    address: str | None = Field(None, description="`host:port`; needed once it is ready.")
    silent: bool = Field(False, description="It was ready, and its probe hears nothing good of it any more.")
    detail: Annotated[str, Field(max_length=4096)] = ""
    """While it is not ready: what its probe heard last."""


class ReplicaBeatReply(Message):
    """What the holder must know."""

    stop: bool = Field(description="No gateway uses it any more: end the container and report the end.")
    in_flight: int | None = Field(None, description="Of one that is silent: calls that gateways have open on it.")


class ReplicaEnd(Message):
    """The replica has ended."""

    consumer: str
    reason: ReplicaReason
    summary: Annotated[str, Field(max_length=4096)] = ""
    """How it ended, in words of the consumer. A release before this one sends none."""
    detail: Annotated[str, Field(max_length=4096)] = ""
    """The summary, and what the container said: for the deployment's owner and for operators."""
    exit_code: int | None = None


class Backend(Message):
    """A replica as gateways reach it."""

    uid: str
    address: str


class Route(Message):
    """A deployment as gateways route to it."""

    human_readable_id: str
    model_version: int
    owner: str | None = None
    serving: ServingSpec
    status: DeploymentStatus
    detail: str | None = Field(None, description="Why, as everybody may know it: gateways tell it to callers.")
    backends: list[Backend] = Field(description="The replicas that are ready.")
    users: list[str] | None = Field(None, description="The owners whose calls it answers; null: everybody's.")
    may_call: bool = Field(True, description="Whether its replicas may call others: while its deployer's key may.")

    @property
    def applications(self) -> list[str]:
        """Each `application` metadata that leads to it."""
        return self.serving.routed_applications(self.human_readable_id)

    @property
    def model_names(self) -> list[str]:
        """The names inside TensorFlow's and KServe's messages that lead to it."""
        return self.serving.routed_model_names(self.human_readable_id)

    @property
    def inner_model_names(self) -> list[str]:
        """The names by which its containers call their models, routed by or not."""
        return self.serving.inner_model_names(self.human_readable_id)


class RoutingTable(Message):
    """Every deployment, sorted by id. `etag` changes with its content."""

    etag: str
    routes: list[Route]
    ended_keys: list[str] = Field(
        default_factory=list, description="The ids of keys that were revoked or expired of late: calls with them end."
    )


class DeploymentLoad(Message):
    """What one gateway process has seen of a deployment since it started."""

    in_flight: int
    queued: int
    idle_s: float | None = Field(None, description="Since the last call began or ended; null if there was none.")


class GatewayReport(Message):
    """One gateway process, about once a second."""

    gateway: Annotated[str, Field(min_length=1, max_length=200, description="The process's own name.")]
    deployments: dict[str, DeploymentLoad]
    replicas: dict[str, int] = Field(
        description="Calls open per replica; a replica that is missing gets no new calls from this process."
    )


class CallerView(Message):
    """The caller that a key stands for."""

    owner: str
    scopes: list[str]
