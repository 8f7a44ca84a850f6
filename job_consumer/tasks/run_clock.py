"""When a run must end. The consumer's monotonic clock alone measures it: nobody sets that, and no outage stops it.

The server's deadline is for a consumer that does not keep it.
"""

import json
import logging
import time
from pathlib import Path
from typing import Self

from contract.statuses import Reason
from job_consumer.boot import boot_id
from job_consumer.output.failures import ModelFailed

logger = logging.getLogger(__name__)


class RunClock:
    """When a run must end."""

    def __init__(self, limit_s: float, *, started: float | None = None) -> None:
        """`started` is by `time.monotonic`; now without it."""
        self.started = time.monotonic() if started is None else started
        self.deadline = self.started + limit_s
        self._limit_s = limit_s

    @classmethod
    def open(cls, path: Path, limit_s: float) -> Self:
        """The clock of a run that began now, or earlier as another process of this consumer noted at `path`.

        The monotonic clock counts from the machine's start. What was noted before that means nothing now: the run did
        not live through it.
        """
        boot = boot_id()
        try:
            noted_boot, started = json.loads(path.read_text())
            if noted_boot == boot and 0 <= float(started) <= time.monotonic():
                return cls(limit_s, started=float(started))
        except (OSError, ValueError, TypeError):
            logger.debug("no start of a run is noted at %s", path)
        clock = cls(limit_s)
        if boot:
            try:
                path.write_text(json.dumps([boot, clock.started]))
            except OSError as error:
                # A consumer that is restarted then gives the run its whole time again.
                logger.warning("the start of a run could not be noted: %s", error)
        return clock

    def time_limit_reached(self) -> ModelFailed | None:
        """The failure of a run that is past its limit."""
        return None if time.monotonic() <= self.deadline else time_limit_failure(self._limit_s)


def time_limit_failure(limit_s: float) -> ModelFailed:
    """The failure of a run that took longer than it may."""
    return ModelFailed(Reason.TIME_LIMIT, f"the run took longer than its limit of {limit_s} s")
