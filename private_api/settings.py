"""The variables of the private API."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from contract.settings import BrokerSettings, Duration

GIB = 1024**3


class PrivateApiSettings(BrokerSettings):
    """Read once in `__main__`."""

    database_url: SecretStr = Field(description="postgresql+psycopg2://user:password@host/name, or sqlite:///path")
    service_token: SecretStr = Field(min_length=16, description="What the other services prove themselves with.")
    data_dir: Path = Path("/data")
    private_api_host: str = "0.0.0.0"  # noqa: S104 - inside its container; no port of it is published
    private_api_port: Annotated[int, Field(ge=1, le=65535)] = 8001
    max_upload_bytes: Annotated[int, Field(gt=0)] = 32 * GIB
    max_unpacked_bytes: Annotated[int, Field(gt=0)] = 128 * GIB
    max_output_bytes: Annotated[int, Field(gt=0)] = 32 * GIB
    keep_finished_for: Duration = timedelta(days=30)
    unschedulable_after: Duration = timedelta(hours=24)
