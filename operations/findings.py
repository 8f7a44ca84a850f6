"""What a check of the host found."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It works; somebody should look."""
    PROBLEM = "problem"
    """Something will not work, or is not safe to run."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table."""

    check: str
    level: Level
    found: str
    advice: str = ""
    """What to do; empty if all is well."""


def ok(check: str, found: str) -> Finding:
    """A finding that all is well."""
    return Finding(check, Level.OK, found)


def warning(check: str, found: str, advice: str) -> Finding:
    """A finding that somebody should look at."""
    return Finding(check, Level.WARNING, found, advice)


def problem(check: str, found: str, advice: str) -> Finding:
    """A finding that something will not work, or is not safe to run."""
    return Finding(check, Level.PROBLEM, found, advice)
