"""The variables of the gRPC gateway."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from grpc_gateway.admission import Limits
from kit.settings import Duration, Secret, Settings, Switch

_MOST_WORKERS = 4
_DEFAULTS = Limits()

_Count = Annotated[int, Field(ge=1, le=1_000_000)]


class GatewaySettings(Settings):
    """The gateway's settings, read once in `__main__`."""

    service_token: Secret = Field(SecretStr(""), description="What the gateway shows the private API.")
    private_api_url: Annotated[str, Field(pattern=r"^http://[^/?#\s]+$")] = "http://private-api:8001"
    grpc_host: str = "0.0.0.0"  # noqa: S104 - inside its container, behind Traefik
    grpc_port: Annotated[int, Field(ge=1, le=65535)] = 9000
    grpc_control_port: Annotated[int, Field(ge=1, le=65535, description="Of the process for control calls.")] = 9001
    grpc_replica_port: Annotated[
        int, Field(ge=1, le=65535, description="For containers of deployments, whose tokens are honoured there alone.")
    ] = 9002
    grpc_workers: Annotated[
        int | None, Field(ge=1, le=64, description="Processes on the port; unset: one per core but one, 1 to 4.")
    ] = None
    grpc_drain: Annotated[Duration, Field(description="How long calls may go on after SIGTERM.")] = timedelta(
        seconds=25
    )
    grpc_max_in_flight: Annotated[_Count, Field(description="Calls relayed at once.")] = _DEFAULTS.max_in_flight
    grpc_max_streams: Annotated[_Count, Field(description="Streams relayed at once.")] = _DEFAULTS.max_streams
    grpc_max_bytes_in_flight: Annotated[int, Field(ge=1024**2, description="Bytes of messages held at once.")] = (
        _DEFAULTS.max_bytes_in_flight
    )
    grpc_stream_url: Annotated[
        str | None, Field(pattern=r"^[^/\s]+:\d+$", description="`host:port` that redhare's auth answers.")
    ] = None
    grpc_token_lifetime: Annotated[
        Duration, Field(gt=timedelta(0), description="How long the tokens of redhare's auth open streams.")
    ] = timedelta(hours=1)
    require_api_key: Annotated[
        Switch, Field(description="Whether every call needs a key: any value but 0, false, no and off asks for one.")
    ] = False
    alive_file: Annotated[Path | None, Field(description="Touched while every process is alive.")] = None

    @property
    def workers(self) -> int:
        """How many processes share the port.

        One core is left to the process for control calls and to Traefik: on two cores, two workers relayed no more
        calls than one, and health took half as long again (two runs of 12 s each; docs/decisions/0015).
        """
        return self.grpc_workers or max(1, min((os.cpu_count() or 1) - 1, _MOST_WORKERS))
