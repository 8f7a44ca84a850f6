"""The only module that reads the environment.

A service's settings are a frozen pydantic model with one annotated field per variable: the field `max_upload_bytes`
is the variable `MAX_UPLOAD_BYTES`. An empty variable counts as unset. A `SecretStr` field may come from a file that
`<VARIABLE>_FILE` names. All faults are reported together.
"""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from kit.secret_rules import secret_fault

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class SettingsError(Exception):
    """The environment is faulty. The text has one line per variable."""


def _parse_duration(value: object) -> object:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", value.strip())):
        return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
    if isinstance(value, str):
        raise ValueError("a duration is a number and a unit of s, m, h or d, as in 30d")
    return value


Duration = Annotated[timedelta, BeforeValidator(_parse_duration)]
"""A duration, written as `90s`, `15m`, `12h` or `30d`."""


_NO = frozenset({"0", "false", "no", "off"})


def is_off(text: str) -> bool:
    """Whether a variable's text switches off what it is about."""
    return text.strip().lower() in _NO


def _parse_switch(value: object) -> object:
    return not is_off(value) if isinstance(value, str) else value


Switch = Annotated[bool, BeforeValidator(_parse_switch)]
"""A switch that is on for any value but `0`, `false`, `no` and `off`."""


def check_secret(value: SecretStr) -> SecretStr:
    """The secret, if it is acceptable. Raises `ValueError` with what to do, and without the secret."""
    fault = secret_fault(value.get_secret_value())
    if fault:
        raise ValueError(f"is {fault}; use a random one of 16 characters or more, such as `make secrets` writes")
    return value


Secret = Annotated[SecretStr, AfterValidator(check_secret), Field(validate_default=True)]
"""A password or token. An empty, short or well-known one is refused."""

_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|::1")


def is_loopback(hostname: str) -> bool:
    """Whether the peer is on this machine: a developer's RabbitMQ or PostgreSQL may keep its default password."""
    return _LOOPBACK.fullmatch(hostname) is not None


def environment() -> Mapping[str, str]:
    """The environment of this process."""
    return os.environ


def forget(variable: str) -> None:
    """Remove a variable from the environment of this process."""
    os.environ.pop(variable, None)


class Settings(BaseModel):
    """The base of every service's settings."""

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
                    # Count it as given: no rule should ask for another variable instead.
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
