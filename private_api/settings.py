"""The variables of the private API."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from pydantic import Field, SecretStr

from contract.settings import BrokerSettings, Duration

GIB = 1024**3


class PrivateApiSettings(BrokerSettings):
    """Read once in `__main__`."""

    database_url: SecretStr | None = Field(None, description="Takes the place of the POSTGRES variables.")
    postgres_hostname: str = "postgres"
    postgres_port: Annotated[int, Field(ge=1, le=65535)] = 5432
    postgres_user: str = "inference"
    postgres_db: str = "inference"
    postgres_password: SecretStr = SecretStr("")
    service_token: SecretStr = Field(min_length=16, description="What the other services prove themselves with.")
    data_dir: Path = Path("/data")
    private_api_host: str = "0.0.0.0"  # noqa: S104 - inside its container; no port of it is published
    private_api_port: Annotated[int, Field(ge=1, le=65535)] = 8001
    max_upload_bytes: Annotated[int, Field(gt=0)] = 32 * GIB
    max_unpacked_bytes: Annotated[int, Field(gt=0)] = 128 * GIB
    max_output_bytes: Annotated[int, Field(gt=0)] = 32 * GIB
    keep_finished_for: Duration = timedelta(days=30)
    unschedulable_after: Duration = timedelta(hours=24)

    @property
    def effective_database_url(self) -> str:
        """The SQLAlchemy URL, password included: never log it."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        user, password = quote(self.postgres_user, safe=""), quote(self.postgres_password.get_secret_value(), safe="")
        return f"postgresql+psycopg2://{user}:{password}@{self.postgres_hostname}:{self.postgres_port}/{self.postgres_db}"
