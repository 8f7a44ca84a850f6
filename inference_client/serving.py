"""How a model is kept warm: the description that `deploy` sends. Durations are seconds."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from inference_client.statuses import Category, WireProtocol


class RestrictedKey(BaseModel):
    """Calls of these categories need the metadata `triton-grpc-protocol-<key>: <value>`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    categories: list[Category]
    key: str
    value: str


class ServingSpec(BaseModel):
    """How a model is kept warm. Members that are unknown here are kept and sent: the server judges them."""

    model_config = ConfigDict(frozen=True, extra="allow")

    port: Annotated[int, Field(ge=1, le=65535)]
    protocol: WireProtocol = WireProtocol.GRPC
    readiness: str = "protocol"
    replicas_min: int = 0
    replicas_max: int = 1
    target_in_flight: int = 16
    idle_timeout_s: float = 600
    start_timeout_s: float = 600
    liveness_timeout_s: float | None = None
    drain_timeout_s: float = 30
    call_timeout_s: float | None = None
    max_in_flight: int = 256
    max_queued: int = 1024
    max_streams: int = 256
    prefix: str | None = None
    default_service: str | None = None
    application: str | None = None
    applications: list[str] = []
    model_names: list[str] = []
    unrouted_model_names: list[str] = []
    restricted_keys: list[RestrictedKey] = []
    allow_admin: bool = False
    share_gpu: bool = False
    serves_tasks: bool = False
    priority: int = -1
    express: bool = False
