"""Whether a consumer can run tasks: it looks before each claim, and pauses once several tasks in a row failed here.

A sick consumer claims nothing, so that the tasks wait for a sound one. It says why with its claims and in its log, is
not healthy for container health checks, and looks again by itself.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from contract.consumer_health import ConsumerHealth
from kit.sizes import say_bytes

logger = logging.getLogger(__name__)

FAILURES = 3
"""So many different tasks must fail one after the other: fewer may be the tasks' own fault."""
FIRST_PAUSE_S = 30.0
LONGEST_PAUSE_S = 600.0
_MIN_FREE_FILES = 1000

Check = Callable[[], str | None]
"""Looks at one thing that tasks need; returns what is wrong with it, in a sentence."""


class WorkDisk:
    """The disk that a consumer's work folder is on."""

    def __init__(self, root: Path, min_free_bytes: int) -> None:
        """With less than `min_free_bytes` free, no task is taken."""
        self._root = root
        self._min_free_bytes = min_free_bytes

    def check(self) -> str | None:
        """Why no task fits at all."""
        try:
            disk = os.statvfs(self._root)
        except OSError as error:
            return f"its work folder {self._root} cannot be read: {error.strerror}"
        if disk.f_flag & os.ST_RDONLY:
            return f"the file system of its work folder {self._root} is read-only"
        free = disk.f_bavail * disk.f_frsize
        if free < self._min_free_bytes:
            return (
                f"its work folder {self._root} has {say_bytes(free)} free, less than the "
                f"{say_bytes(self._min_free_bytes)} of MIN_FREE_BYTES"
            )
        # Some file systems count no files.
        if disk.f_files and disk.f_favail < _MIN_FREE_FILES:
            return f"the file system of its work folder {self._root} has room for only {disk.f_favail} more files"
        return None

    def free_bytes(self) -> int | None:
        """What a task may fill; None if that cannot be read."""
        try:
            disk = os.statvfs(self._root)
        except OSError:
            return None
        return max(0, disk.f_bavail * disk.f_frsize - self._min_free_bytes)


class Health:
    """The health of one consumer. Its methods may be called from any thread."""

    def __init__(
        self,
        consumer: str = "",
        checks: Sequence[Check] = (),
        free_bytes: Callable[[], int | None] = lambda: None,
        *,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        """`checks` are made in this order, up to the first that finds something."""
        self._consumer = consumer
        self._checks = checks
        self._free_bytes = free_bytes
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._looking = threading.Lock()
        self._counting = threading.Lock()
        self._failed: set[str] = set()
        """The tasks that failed here since one ran."""
        self._pauses = 0
        self._paused_until = -math.inf
        self._why_paused = ""
        self.trouble: str | None = None
        """What the newest look found."""

    def look(self, *, beside_run: bool = False) -> ConsumerHealth:
        """Look at everything that tasks need.

        What is found beside a run is neither logged nor kept as `trouble`: the run may have caused it, and goes on.
        """
        with self._looking:
            found = self._find_trouble()
            if beside_run:
                return ConsumerHealth(trouble=found and found[:2048], free_bytes=self._free_bytes())
            if found is not None and self.trouble is None:
                logger.error("consumer=%s is sick, takes nothing, and looks again by itself: %s", self._consumer, found)
            elif found is None and self.trouble is not None:
                logger.info("consumer=%s takes work again", self._consumer)
            self.trouble = found
            return ConsumerHealth(trouble=found and found[:2048], free_bytes=self._free_bytes())

    def pause_s(self) -> float:
        """How long nothing is tried because of tasks that failed; 0 if it may be tried now."""
        return max(0.0, self._paused_until - time.monotonic())

    def note_failed(self, uid: str, why: str) -> None:
        """Count a task that failed here, and not by its model."""
        with self._counting:
            self._failed.add(uid)
            if len(self._failed) < FAILURES:
                return
            pause_s = min(self._longest_pause_s, self._first_pause_s * 2**self._pauses)
            self._pauses += 1
            self._paused_until = time.monotonic() + pause_s
            self._why_paused = (
                f"{len(self._failed)} tasks in a row failed here, so it tries the next one after {pause_s:g} s; "
                f"the last failure: {why}"
            )

    def note_worked(self) -> None:
        """Forget what failed: a container ran to its end here."""
        with self._counting:
            self._failed.clear()
            self._pauses = 0
            self._paused_until = -math.inf

    def _find_trouble(self) -> str | None:
        if self.pause_s() > 0:
            return self._why_paused
        return next((found for check in self._checks if (found := check()) is not None), None)
