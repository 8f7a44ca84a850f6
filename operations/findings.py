"""What a check of the host says."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works; somebody should look."""
    PROBLEM = "problem"
    """Something will not work, or must not run like this."""


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    check: str
    level: Level
    found: str
    advice: str = ""
    """What to do; empty where all is well."""


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, found)


def warning(check: str, found: str, advice: str) -> Finding:
    """It works; somebody should look."""
    return Finding(check, Level.WARNING, found, advice)


def problem(check: str, found: str, advice: str) -> Finding:
    """Something will not work, or must not run like this."""
    return Finding(check, Level.PROBLEM, found, advice)
