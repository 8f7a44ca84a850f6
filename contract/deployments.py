"""Deployments and replicas as services exchange them: what operators see, consumers run and gateways route by.

A *deployment* is a model with a serving description; a *replica* is one container of it. Durations are seconds.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from contract.schemas import ArchiveView, ConsumerRegistration, Message, Query
from contract.serving import Serving


class ReplicaStatus(StrEnum):
    """Where a replica stands."""

    WANTED = "wanted"
    """Waits for a consumer."""
    STARTING = "starting"
    """A consumer holds it; its container is not ready yet."""
    READY = "ready"
    """Answers calls."""
    DRAINING = "draining"
    """Gets no new calls; ends once its open ones are answered."""
    ENDED = "ended"
    """Is no more; its row says why."""


class ReplicaReason(StrEnum):
    """Why a replica ended: the closed list that operators can switch on."""

    SURPLUS = "surplus"
    """Nobody needed it: the idle timeout, a new version, or the end of its deployment."""
    EVICTED = "evicted"
    """Waiting tasks of a higher priority needed its GPU."""
    CONTAINER_ENDED = "container_ended"
    NOT_READY = "not_ready"
    IMAGE_NOT_FOUND = "image_not_found"
    MODEL_REJECTED = "model_rejected"
    LOST = "lost"
    """Its consumer stopped answering."""
    RELEASED = "released"
    """Its consumer was stopped, or failed for a reason that says nothing about the model."""

    @property
    def is_failure(self) -> bool:
        """Whether the model's container is to blame: such ends make the next start wait."""
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
    detail: str | None = None
    consumer: str | None = None
    gpu_uuid: str | None = None
    address: str | None = Field(None, description="`host:port` on the replicas' network, once it is ready.")
    in_flight: int = Field(0, description="Calls that gateways have open on it.")
    created_at: datetime
    ready_at: datetime | None = None
    ended_at: datetime | None = None


class DeploymentStatus(StrEnum):
    """How a deployment stands, in a word."""

    IDLE = "idle"
    """Nobody calls it and none is kept warm: the first call starts a replica."""
    STARTING = "starting"
    READY = "ready"
    """At least one replica answers."""
    FAILING = "failing"
    """Its replicas end by themselves; `detail` says why, `next_start_at` when the next try is."""


class DeploymentView(Message):
    """A deployment and its replicas: those that live and the last few that ended."""

    human_readable_id: str
    model_version: int
    owner: str | None = None
    serving: Serving
    status: DeploymentStatus
    detail: str | None = None
    failures: int = Field(description="Replicas in a row that ended by themselves.")
    next_start_at: datetime | None = None
    replicas: list[ReplicaView]
    created_at: datetime
    updated_at: datetime


class ReplicaClaim(ConsumerRegistration):
    """A consumer asks for a replica to host."""

    uid: str | None = Field(None, description="The replica that the bell named; it goes first.")


class ReplicaAssignment(Message):
    """All a consumer needs to know to run one replica."""

    uid: str
    fence: int
    lease_s: float
    human_readable_id: str
    model_version: int
    container_tag: str
    use_gpu: bool
    pull_policy: str
    isolation: str
    memory_limit_bytes: int | None
    max_unpacked_bytes: int
    model_archive: ArchiveView | None
    serving: Serving
    environment: dict[str, str] = Field(description="What the container is told: tokens and names of the platform's.")


class ReplicaBeat(Message):
    """The holder lives and says how far the container is."""

    consumer: str
    ready: bool
    address: str | None = Field(None, description="`host:port`; needed once it is ready.")


class ReplicaBeatReply(Message):
    """What the holder must know."""

    stop: bool = Field(description="No gateway uses it any more: end the container and report the end.")


class ReplicaEnd(Message):
    """The replica is no more."""

    consumer: str
    reason: ReplicaReason
    detail: Annotated[str, Field(max_length=4096)] = ""
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
    serving: Serving
    status: DeploymentStatus
    detail: str | None = None
    backends: list[Backend] = Field(description="The replicas that are ready.")

    @property
    def application(self) -> str:
        """The `application` metadata that names it."""
        return self.serving.application or self.human_readable_id

    @property
    def model_names(self) -> list[str]:
        """The names inside TensorFlow's and KServe's messages that lead to it."""
        return self.serving.model_names or [self.human_readable_id]


class RoutingTable(Message):
    """Every deployment, sorted by id. `etag` changes with its content."""

    etag: str
    routes: list[Route]


class DeploymentLoad(Message):
    """What one gateway process has seen of a deployment since it started."""

    in_flight: int
    queued: int
    idle_s: float | None = Field(None, description="Since the last call began or ended; null where none ever came.")


class GatewayReport(Message):
    """One gateway process, about once a second."""

    gateway: Annotated[str, Field(min_length=1, max_length=200, description="The process's own name.")]
    deployments: dict[str, DeploymentLoad]
    replicas: dict[str, int] = Field(
        description="Calls open per replica; a replica that is missing gets no new calls from this process."
    )


class CallerView(Message):
    """Who a key stands for."""

    owner: str
    scopes: list[str]
