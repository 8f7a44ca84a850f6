"""Decides from its probes whether a replica that was ready still is. Pure: the caller has the clock and the probe."""

from enum import Enum, auto


class Verdict(Enum):
    """What is to be done about a replica."""

    NOTHING = auto()
    SILENT = auto()
    """No new calls: it has heard nothing good for the time limit."""
    BACK = auto()
    """It answers again: calls may come."""
    GONE = auto()
    """It is silent, has been for the time limit again, and no call is open on it: nothing waits for it any more."""


class Liveness:
    """A replica that computes in its only thread answers no probe: it is left to finish the calls that are open on it.

    Times are seconds of one monotonic clock. Without a time limit nothing is ever due.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._interval_s = min(10.0, (timeout_s or 0) / 4)
        self._next_at = 0.0
        self._silent_since: float | None = None
        self._idle_since: float | None = None
        """Since when it has been silent and without a call."""
        self._is_silent = False

    def is_due(self, now: float) -> bool:
        """Whether it is time for the next probe."""
        return self._timeout_s is not None and now >= self._next_at

    def forgive(self, now: float) -> None:
        """Nothing is known at this time: a silence begins anew."""
        self._next_at = now + self._interval_s
        self._silent_since = self._idle_since = None

    def judge(self, is_ready: bool, now: float, in_flight: int | None) -> Verdict:
        """Take one probe's answer into account; `in_flight` are the calls open on a silent replica, None if unknown."""
        assert self._timeout_s is not None  # noqa: S101 - else nothing is due
        self._next_at = now + self._interval_s
        if is_ready:
            was_silent, self._is_silent = self._is_silent, False
            self._silent_since = self._idle_since = None
            return Verdict.BACK if was_silent else Verdict.NOTHING
        if self._silent_since is None:
            self._silent_since = now
        if not self._is_silent and now - self._silent_since < self._timeout_s:
            return Verdict.NOTHING
        self._is_silent = True
        if in_flight != 0:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since >= self._timeout_s:
            return Verdict.GONE
        return Verdict.SILENT
