"""How a model is kept warm: the spec that an operator posts. Durations are seconds."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PREFIX_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
"""Without a dot, so that no prefix looks like the full name of a gRPC service."""
SERVICE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class WireProtocol(StrEnum):
    """What a container speaks, which decides how readiness is probed and which service a bare prefix stands for."""

    REDHARE = "redhare"
    KSERVE = "kserve"
    TENSORFLOW = "tensorflow"
    RAY = "ray"
    """Ray Serve itself, whose own router finds the application inside the container."""
    GRPC = "grpc"
    """Any service of the user's own."""


DEFAULT_SERVICES = {
    WireProtocol.REDHARE: "redhare.Inference",
    WireProtocol.KSERVE: "inference.GRPCInferenceService",
    WireProtocol.TENSORFLOW: "tensorflow.serving.PredictionService",
}


class Category(StrEnum):
    """The groups of KServe calls that a restricted key can close, as Triton names them."""

    HEALTH = "health"
    METADATA = "metadata"
    INFERENCE = "inference"
    SHARED_MEMORY = "shared-memory"
    MODEL_CONFIG = "model-config"
    MODEL_REPOSITORY = "model-repository"
    STATISTICS = "statistics"
    TRACE = "trace"
    LOGGING = "logging"


class RestrictedKey(BaseModel):
    """Calls of these categories need the metadata `triton-grpc-protocol-<key>: <value>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    categories: Annotated[list[Category], Field(min_length=1)]
    key: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")]
    value: Annotated[str, Field(min_length=1, max_length=256)]


class ServingSpec(BaseModel):
    """The body of `POST /api/models/{human_readable_id}/deployment`: how the model is kept warm."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: Annotated[int, Field(ge=1, le=65535, description="Where the container listens, in plain text.")]
    protocol: Annotated[WireProtocol, Field(description="What the container speaks.")] = WireProtocol.GRPC
    readiness: Annotated[
        Literal["protocol", "tcp"],
        Field(
            description="`protocol`: the replica counts as ready once it says so in its protocol (for `grpc`: "
            "grpc.health.v1 where it is served, else an open connection; for `ray`: ListApplications has every one of "
            "`applications`). `tcp`: once the port is open."
        ),
    ] = "protocol"
    replicas_min: Annotated[int, Field(ge=0, le=64, description="Kept warm also without calls.")] = 0
    replicas_max: Annotated[int, Field(ge=1, le=64, description="At most this many under load.")] = 1
    target_in_flight: Annotated[
        int, Field(ge=1, le=10_000, description="Calls per replica beyond which another one is started.")
    ] = 16
    idle_timeout_s: Annotated[
        float, Field(ge=1, le=7 * 86400, description="Replicas above the minimum end this long after the last call.")
    ] = 600
    start_timeout_s: Annotated[
        float, Field(ge=1, le=86400, description="From the container's start until it must be ready.")
    ] = 600
    liveness_timeout_s: Annotated[
        float | None,
        Field(
            ge=1,
            le=86400,
            description="A replica that is ready is asked again, as for readiness: one that does not answer well for "
            "this long gets no new calls until it does, and ends after as long again without a call open on it. "
            "Unset: it is not asked again.",
        ),
    ] = None
    drain_timeout_s: Annotated[
        float, Field(ge=0, le=86400, description="How long a replica that leaves may finish its calls.")
    ] = 30
    call_timeout_s: Annotated[
        float | None, Field(gt=0, le=86400, description="The longest a unary call may take; unset: the caller's own.")
    ] = None
    max_in_flight: Annotated[
        int, Field(ge=1, le=100_000, description="Calls one replica answers at once; further ones queue.")
    ] = 256
    max_queued: Annotated[
        int, Field(ge=0, le=100_000, description="Calls that may wait; further ones are RESOURCE_EXHAUSTED.")
    ] = 1024
    max_streams: Annotated[int, Field(ge=1, le=100_000, description="Streams open at once on one replica.")] = 256
    prefix: Annotated[
        str | None, Field(pattern=PREFIX_PATTERN, description="Calls to `/<prefix>/...` go to this deployment.")
    ] = None
    default_service: Annotated[
        str | None,
        Field(pattern=SERVICE_PATTERN, description="The service that `/<prefix>/<Method>` means; by the protocol."),
    ] = None
    application: Annotated[
        Name | None, Field(description="The `application` metadata that names it; default: the model's id.")
    ] = None
    applications: Annotated[
        list[Name],
        Field(
            max_length=64,
            description="In place of `application`: the applications inside the container, each of which leads here. "
            "The metadata is passed on, so that the container finds its own.",
        ),
    ] = []
    model_names: Annotated[
        list[Name], Field(max_length=64, description="Names of models inside messages; default: the model's id.")
    ] = []
    unrouted_model_names: Annotated[
        list[Name],
        Field(
            max_length=64,
            description="Names of models inside the container that lead no call here, so that other deployments may "
            "have them too: their calls come by `prefix` or `application`. With these alone, `model_names` has no "
            "default.",
        ),
    ] = []
    restricted_keys: Annotated[list[RestrictedKey], Field(max_length=16)] = []
    allow_admin: Annotated[
        bool, Field(description="Whether loading, unloading, shared memory, trace and log settings are passed on.")
    ] = False
    share_gpu: Annotated[bool, Field(description="Whether tasks and other replicas may use its GPU too.")] = False
    serves_tasks: Annotated[
        bool, Field(description="Whether the container runs tasks too: it serves `inferenceserver.Tasks`.")
    ] = False
    priority: Annotated[
        int,
        Field(
            ge=-100,
            le=100,
            description="Against the priority of tasks (0 unless they say so): waiting GPU tasks of a higher one end "
            "an idle replica, and get a GPU that becomes free first.",
        ),
    ] = -1
    express: Annotated[
        bool, Field(description="Whether `<id>.grpc.<domain>` leads straight to a replica, past the gateway.")
    ] = False

    @field_validator("restricted_keys")
    @classmethod
    def _check_categories(cls, keys: list[RestrictedKey]) -> list[RestrictedKey]:
        named = [category for key in keys for category in key.categories]
        if len(named) != len(set(named)):
            raise ValueError("a category may stand in one restricted key only")
        return keys

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.replicas_min > self.replicas_max:
            raise ValueError("replicas_min is larger than replicas_max")
        if self.application and self.applications:
            raise ValueError("applications stands in place of application: give one of them")
        return self

    def routed_applications(self, human_readable_id: str) -> list[str]:
        """The `application` metadata that leads to the deployment of this model; at least one."""
        return list(dict.fromkeys(self.applications)) or [self.application or human_readable_id]

    def routed_model_names(self, human_readable_id: str) -> list[str]:
        """The names inside messages that lead to the deployment of this model."""
        return self.model_names or ([] if self.unrouted_model_names else [human_readable_id])

    def inner_model_names(self, human_readable_id: str) -> list[str]:
        """The names by which the container calls its models."""
        return list(dict.fromkeys([*self.routed_model_names(human_readable_id), *self.unrouted_model_names]))

    @property
    def service(self) -> str | None:
        """The service that a bare `/<prefix>/<Method>` means."""
        return self.default_service or DEFAULT_SERVICES.get(self.protocol)
