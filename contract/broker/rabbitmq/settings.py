"""The variables of a service that talks to RabbitMQ."""

from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from kit.settings import Settings, check_secret, is_loopback


class BrokerSettings(Settings):
    """Where RabbitMQ is and how to log in."""

    rabbit_hostname: str = "rabbitmq"
    rabbit_port: Annotated[int, Field(ge=1, le=65535)] = 5672
    rabbit_user: str = "inference"
    rabbit_password: Annotated[SecretStr, Field(validate_default=True)] = SecretStr("")
    rabbit_vhost: str = "/"
    rabbit_queue_type: Literal["classic", "quorum"] = "classic"

    @field_validator("rabbit_password")
    @classmethod
    def _check_rabbit_password(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        return value if is_loopback(info.data.get("rabbit_hostname", "")) else check_secret(value)

    @property
    def broker_url(self) -> str:
        """The AMQP URL, password included: never log it."""
        user, password = quote(self.rabbit_user, safe=""), quote(self.rabbit_password.get_secret_value(), safe="")
        return f"amqp://{user}:{password}@{self.rabbit_hostname}:{self.rabbit_port}/{quote(self.rabbit_vhost, safe='')}"
