"""The variables of a job consumer."""

import socket
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from contract.settings import BrokerSettings, Secret

MIB = 1024**2
GIB = 1024**3


class JobConsumerSettings(BrokerSettings):
    """Read once in `__main__`."""

    service_token: Secret = Field(SecretStr(""), description="What the other services prove themselves with.")
    private_api_url: str = "http://private-api:8001"
    consumer_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = Field(
        default_factory=socket.gethostname, description="Stable across restarts: by it runs are adopted."
    )
    gpu_uuid: str | None = None
    accepts_cpu_tasks: bool = True
    work_dir: Path = Path("/work")
    work_volume: str | None = None
    alive_file: Path | None = None
    memory_limit_bytes: Annotated[int, Field(ge=6 * MIB)] = 16 * GIB
    cpu_limit: Annotated[float, Field(gt=0)] | None = None
    pids_limit: Annotated[int, Field(ge=16)] = 512
    shared_memory_bytes: Annotated[int, Field(ge=MIB)] = 1 * GIB
    temporary_bytes: Annotated[int, Field(ge=MIB)] = 1 * GIB
    container_log_bytes: Annotated[int, Field(ge=MIB)] = 32 * MIB
    replica_network: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")] | None = Field(
        None, description="The Engine's network that gateways reach replicas on; unset: no replicas are hosted."
    )
    replica_slots: Annotated[int, Field(ge=0, le=1000, description="At most so many replicas at once.")] = 8
