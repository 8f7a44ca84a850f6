"""How every service starts as a process of its own: settings first, then the log, then its work."""

import sys
from collections.abc import Callable
from typing import TypeVar

from contract.logging import configure_logging
from contract.settings import Settings, SettingsError

_Settings = TypeVar("_Settings", bound=Settings)


def start_service(name: str, kind: type[_Settings], run: Callable[[_Settings], int]) -> int:
    """Read the settings and `run` with them. Returns its exit code; 2 for faulty settings, which are told on stderr."""
    try:
        settings = kind.load()
    except SettingsError as error:
        print(f"{name} cannot start:\n{error}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        return 2
    configure_logging(settings.log_level, settings.log_format)
    return run(settings)
