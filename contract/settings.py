"""The only place that reads the environment.

A service's settings are a frozen pydantic model with one annotated field per variable: the field `max_upload_bytes`
is the variable `MAX_UPLOAD_BYTES`. An empty variable is an unset one. A `SecretStr` field may come from a file that
`<VARIABLE>_FILE` names. All faults are reported together.
"""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from contract.secret_rules import secret_fault

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class SettingsError(Exception):
    """What is wrong with the environment, one line per variable."""


def _parse_duration(value: object) -> object:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", value.strip())):
        return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
    if isinstance(value, str):
        raise ValueError("a duration is a number and a unit of s, m, h or d, as in 30d")
    return value


Duration = Annotated[timedelta, BeforeValidator(_parse_duration)]
"""A length of time, written as `90s`, `15m`, `12h` or `30d`."""


_NO = frozenset({"0", "false", "no", "off"})


def _parse_switch(value: object) -> object:
    return value.strip().lower() not in _NO if isinstance(value, str) else value


Switch = Annotated[bool, BeforeValidator(_parse_switch)]
"""Whether something is on: any value but `0`, `false`, `no` and `off`."""


def check_secret(value: SecretStr) -> SecretStr:
    """The secret itself, where it is one. Raises `ValueError` with what to do, and without the secret."""
    fault = secret_fault(value.get_secret_value())
    if fault:
        raise ValueError(f"is {fault}; use a random one of 16 characters or more, such as `make secrets` writes")
    return value


Secret = Annotated[SecretStr, AfterValidator(check_secret), Field(validate_default=True)]
"""A password or token. An empty, short or well-known one is refused."""

_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|::1")


def is_loopback(hostname: str) -> bool:
    """Whether only this machine reaches the peer: there a developer's RabbitMQ or PostgreSQL may keep its default."""
    return _LOOPBACK.fullmatch(hostname) is not None


def environment() -> Mapping[str, str]:
    """The process's environment."""
    return os.environ


class Settings(BaseModel):
    """Base of a service's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    log_format: Annotated[str, Field(pattern="^(text|json)$")] = "text"

    @classmethod
    def load(cls, variables: Mapping[str, str] | None = None) -> Self:
        """Read every field from `variables` (default: the environment). Raises `SettingsError` naming all faults."""
        source = environment() if variables is None else variables
        values: dict[str, Any] = {}
        faults: dict[str, str] = {}
        for field, info in cls.model_fields.items():
            variable = field.upper()
            if source.get(variable):
                values[field] = source[variable]
            elif "SecretStr" in str(info.annotation) and source.get(f"{variable}_FILE"):
                path = Path(source[f"{variable}_FILE"])
                try:
                    values[field] = path.read_text().strip()
                except OSError as error:
                    faults[variable] = f"{variable}_FILE={path}: cannot be read: {error.strerror}"
                    # Given, if unreadable: no rule shall ask for another variable in its place.
                    values[field] = ""
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            for fault in error.errors(include_input=False):
                variable = str(fault["loc"][0]).upper() if fault["loc"] else "the settings"
                # Never the input: it may be a secret.
                faults.setdefault(variable, f"{variable}: {fault['msg'].removeprefix('Value error, ')}")
        if faults:
            raise SettingsError("\n".join(faults.values()))
        return settings


class BrokerSettings(Settings):
    """Where RabbitMQ is."""

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
