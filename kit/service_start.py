"""How every service starts as a process: it reads its settings, configures its log, and runs."""

import sys
from collections.abc import Callable
from typing import TypeVar

from kit.logging import configure_logging
from kit.memory import tune_memory
from kit.settings import Settings, SettingsError

_Settings = TypeVar("_Settings", bound=Settings)


def start_service(name: str, kind: type[_Settings], run: Callable[[_Settings], int]) -> int:
    """Read the settings and `run` with them. Returns its exit code, or 2 after printing what is wrong with them."""
    try:
        settings = kind.load()
    except SettingsError as error:
        print(f"{name} cannot start:\n{error}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        return 2
    configure_logging(settings.log_level, settings.log_format)
    tune_memory()
    return run(settings)
