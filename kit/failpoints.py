"""Named points at which a test makes a service fail: `FAIL_AT=<point>:<action>`. Unset, they do nothing.

A service lists its points in an enum, and its settings refuse a name that is not one of them. A point acts once per
process: what is left of the variable is nothing, so that the service goes on as any other after a `raise`.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from enum import StrEnum

from kit.settings import environment, forget

VARIABLE = "FAIL_AT"

logger = logging.getLogger(__name__)


class Action(StrEnum):
    """What happens at a point."""

    KILL9 = "kill9"
    """The process ends at once, as by `kill -9`."""
    RAISE = "raise"
    """An error that nobody foresaw."""
    HANG = "hang"
    """The thread stands still for ever."""


class FailpointReached(Exception):
    """The error that `raise` stands for."""


def known_point(points: type[StrEnum]) -> Callable[[str], str]:
    """A check for a service's settings. It raises `ValueError` for a point that the service does not have."""

    def check(value: str) -> str:
        point, _, action = value.partition(":")
        if point not in list(points):
            raise ValueError(f"{point!r} is none of {', '.join(points)}")
        if action not in list(Action):
            raise ValueError(f"write {point}: and one of {', '.join(Action)}")
        return value

    return check


def reach(point: StrEnum) -> None:
    """Fail here if `FAIL_AT` says so. Raises `FailpointReached` where the action is `raise`."""
    wanted, _, action = environment().get(VARIABLE, "").partition(":")
    if wanted != point:
        return
    forget(VARIABLE)
    logger.warning("%s=%s: failing on purpose", VARIABLE, f"{point}:{action}")
    if action == Action.KILL9:
        os.kill(os.getpid(), signal.SIGKILL)
        # The first process of a container does not get the signals that it sends itself.
        os._exit(128 + signal.SIGKILL)
    while action == Action.HANG:
        time.sleep(3600)
    raise FailpointReached(point)
