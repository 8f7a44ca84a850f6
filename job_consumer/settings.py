"""The variables of a job consumer."""

import socket
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from contract.access import KEY_PATTERN
from contract.broker.rabbitmq.settings import BrokerSettings
from job_consumer.failpoints import Failpoint
from kit.disk import DISK_RESERVE_BYTES
from kit.failpoints import known_point
from kit.settings import Settings, check_secret

MIB = 1024**2
GIB = 1024**3
SCRATCH_BYTES = 32 * GIB
MODEL_CACHE_BYTES = 100 * GIB
IMAGE_CACHE_BYTES = 200 * GIB
MIN_FREE_BYTES = 1 * GIB
MAX_PIDS = 4096


@dataclass(frozen=True)
class Credential:
    """What a consumer identifies itself with to the private API."""

    variable: str
    """Which setting it came from."""
    secret: str = field(repr=False)


class LimitSettings(Settings):
    """What one run may take of the host."""

    memory_limit_bytes: Annotated[int, Field(ge=6 * MIB)] = 16 * GIB
    cpu_limit: Annotated[float, Field(gt=0)] | None = None
    pids_limit: Annotated[int, Field(ge=16)] = 512
    max_pids: Annotated[int, Field(ge=16, description="What a model may ask for, or PIDS_LIMIT if that is more.")] = (
        MAX_PIDS
    )
    shared_memory_bytes: Annotated[int, Field(ge=MIB)] = 1 * GIB
    temporary_bytes: Annotated[int, Field(ge=MIB)] = 1 * GIB
    container_log_bytes: Annotated[int, Field(ge=MIB)] = 32 * MIB
    scratch_bytes: Annotated[int, Field(ge=MIB)] = SCRATCH_BYTES
    disk_reserve_bytes: Annotated[int, Field(ge=0)] = DISK_RESERVE_BYTES


class JobConsumerSettings(BrokerSettings, LimitSettings):
    """The settings of one consumer; read once, in `__main__`."""

    consumer_key: SecretStr | None = Field(None, description="This host's key, with the scope consume.")
    service_token: Annotated[SecretStr | None, Field(validate_default=True)] = Field(
        None, description="In place of the key, where the consumer shares a host with the platform."
    )
    private_api_url: str = "http://private-api:8001"
    consumer_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = Field(
        default_factory=socket.gethostname, description="Stable across restarts: by it runs are adopted."
    )
    gpu_uuid: str | None = None
    accepts_cpu_tasks: bool = True
    work_dir: Path = Path("/work")
    work_volume: str | None = None
    model_cache_bytes: Annotated[int, Field(ge=0)] = MODEL_CACHE_BYTES
    image_cache_bytes: Annotated[int, Field(ge=0)] = IMAGE_CACHE_BYTES
    min_free_bytes: Annotated[int, Field(ge=0)] = MIN_FREE_BYTES
    registry_auth_file: Path | None = Field(
        None, description="Logins for private registries, as `docker login` writes them; read for each pull."
    )
    alive_file: Path | None = None
    replica_network: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")] | None = Field(
        None, description="The Engine's network that replicas are on; unset: no replicas are hosted."
    )
    replica_guard_image: str | None = Field(
        None, description="The image, with nft, of the containers that guard replicas; unset: this host's own nft."
    )
    replica_publish_address: IPv4Address | IPv6Address | None = Field(
        None, description="This host's address that gateways reach replicas at; unset: they reach the network itself."
    )
    replica_slots: Annotated[int, Field(ge=0, le=1000, description="At most this many replicas at once.")] = 8
    fail_at: Annotated[str, AfterValidator(known_point(Failpoint))] | None = Field(None, description="For tests.")

    @field_validator("replica_publish_address")
    @classmethod
    def _check_publish_address(cls, value: IPv4Address | IPv6Address | None) -> IPv4Address | IPv6Address | None:
        if value is not None and value.is_unspecified:
            raise ValueError("is every address; name the one of this host that gateways reach")
        return value

    @field_validator("consumer_key")
    @classmethod
    def _check_consumer_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not KEY_PATTERN.fullmatch(value.get_secret_value()):
            raise ValueError("is not a key; `inference-server keys create --scope consume` makes one")
        return value

    @field_validator("service_token")
    @classmethod
    def _check_service_token(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        # A key that was refused is missing here, and is the only fault to report.
        if "consumer_key" not in info.data:
            return value
        is_beside = info.data["consumer_key"] is not None
        if is_beside and value is not None:
            raise ValueError(
                "is set beside CONSUMER_KEY; a consumer identifies itself with one of the two: unset the other"
            )
        if not is_beside and value is None:
            raise ValueError("is empty; use a random one, such as `make secrets` writes, or set CONSUMER_KEY instead")
        return value if value is None else check_secret(value)

    @property
    def publish_address(self) -> str | None:
        """The `replica_publish_address` as text, if it is set."""
        return str(self.replica_publish_address) if self.replica_publish_address else None

    @property
    def credential(self) -> Credential:
        """What the consumer shows to the private API."""
        if self.consumer_key is not None:
            return Credential("CONSUMER_KEY", self.consumer_key.get_secret_value())
        return Credential("SERVICE_TOKEN", self.service_token.get_secret_value() if self.service_token else "")
