"""The environment variables of the private API."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from contract.broker.rabbitmq.settings import BrokerSettings
from contract.image_names import Runtimes
from contract.quotas import HIGHEST_LIMIT, Quota
from contract.zip_rules import MAX_ENTRIES, MOST_ENTRIES
from kit.disk import DISK_RESERVE_BYTES
from kit.failpoints import known_point
from kit.secret_rules import is_well_known
from kit.settings import Duration, Secret, Settings, check_secret, is_loopback, is_off
from private_api.failpoints import Failpoint
from private_api.image_rules import Images

GIB = 1024**3
TIB = 1024**4
YIELD_AFTER = timedelta(seconds=60)
"""How long, by default, GPU tasks wait before a replica with calls leaves its GPU to them."""
KEEP_RECORDS_FOR = timedelta(days=365)
"""How long after its end, by default, the record of a deleted or expired task is removed."""


def _parse_limit(value: object) -> object:
    if not isinstance(value, str):
        return value
    if is_off(value):
        return None
    if not value.strip().isdecimal() or not 1 <= int(value) <= HIGHEST_LIMIT:
        raise ValueError("a limit is a whole number from 1 up, or off for any number")
    return int(value)


_Limit = Annotated[int | None, BeforeValidator(_parse_limit)]
"""What one owner may have of something; None for any number."""


class DatabaseSettings(Settings):
    """Where the database is and how to log in."""

    database_url: SecretStr | None = Field(None, description="Replaces the POSTGRES variables.")
    postgres_hostname: str = "postgres"
    postgres_port: Annotated[int, Field(ge=1, le=65535)] = 5432
    postgres_user: str = "inference"
    postgres_db: str = "inference"
    postgres_password: Annotated[SecretStr, Field(validate_default=True)] = SecretStr("")

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr | None) -> SecretStr | None:
        # A URL may lack a password: certificates and sockets need none. A well-known password is as bad as none.
        parts = urlsplit(value.get_secret_value() if value else "")
        if parts.password and is_well_known(unquote(parts.password)) and not is_loopback(parts.hostname or ""):
            raise ValueError("holds a well-known password; give the database's user a random one")
        return value

    @field_validator("postgres_password")
    @classmethod
    def _check_postgres_password(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        # A refused URL is missing here, and is the one fault to report.
        unused = info.data.get("database_url", "") is not None
        return value if unused or is_loopback(info.data.get("postgres_hostname", "")) else check_secret(value)

    @property
    def effective_database_url(self) -> str:
        """The SQLAlchemy URL, password included: never log it."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        user, password = quote(self.postgres_user, safe=""), quote(self.postgres_password.get_secret_value(), safe="")
        return (
            f"postgresql+psycopg2://{user}:{password}@{self.postgres_hostname}:{self.postgres_port}/{self.postgres_db}"
        )


class PrivateApiSettings(DatabaseSettings, BrokerSettings):
    """All settings of the private API, read once in `__main__`."""

    service_token: Secret = Field(SecretStr(""), description="What the other services authenticate with.")
    data_dir: Path = Path("/data")
    private_api_host: str = "0.0.0.0"  # noqa: S104 - inside its container; no port of it is published
    private_api_port: Annotated[int, Field(ge=1, le=65535)] = 8001
    # What a zip adds to the largest output must fit, too: outputs are the next task's inputs.
    max_upload_bytes: Annotated[int, Field(gt=0)] = 33 * GIB
    max_unpacked_bytes: Annotated[int, Field(gt=0)] = 128 * GIB
    max_output_bytes: Annotated[int, Field(gt=0)] = 32 * GIB
    max_entries: Annotated[int, Field(ge=1, le=MOST_ENTRIES)] = MAX_ENTRIES
    disk_reserve_bytes: Annotated[int, Field(ge=0)] = DISK_RESERVE_BYTES
    keep_finished_for: Duration = timedelta(days=30)
    keep_records_for: Duration = KEEP_RECORDS_FOR
    unschedulable_after: Duration = timedelta(hours=24)
    yield_after: Annotated[Duration, Field(gt=timedelta())] = YIELD_AFTER
    grpc_replica_address: Annotated[str, Field(pattern=r"^[^\s:]+:[0-9]{1,5}$")] = "grpc-gateway:9002"
    proxy_domain: str = "localhost"
    allowed_images: Images = ()
    model_runtimes: Runtimes = ()
    quota_queued_tasks: _Limit = 10_000
    quota_running_tasks: _Limit = 256
    quota_stored_bytes: _Limit = 10 * TIB
    quota_daily_bytes: _Limit = 2 * TIB
    quota_uploads: _Limit = 64
    quota_requests: _Limit = 1000
    fail_at: Annotated[str, AfterValidator(known_point(Failpoint))] | None = Field(None, description="For tests.")

    @property
    def quotas(self) -> Mapping[Quota, int | None]:
        """What limits an owner whose key has no limits of its own."""
        return {
            Quota.QUEUED: self.quota_queued_tasks,
            Quota.RUNNING: self.quota_running_tasks,
            Quota.STORED: self.quota_stored_bytes,
            Quota.DAILY: self.quota_daily_bytes,
            Quota.UPLOADS: self.quota_uploads,
            Quota.REQUESTS: self.quota_requests,
        }
