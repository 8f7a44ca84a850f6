"""Notices an engine that refuses connections for long: only a new start of the consumer may reach it then.

An Engine that was started again listens at a new socket. A consumer in a container keeps the old one, which was mounted
when the container started.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from job_consumer.engines import Engine, EngineRefused, EngineUnavailable
from kit.loop import Loop

logger = logging.getLogger(__name__)

_LOOKS = 12
"""While the patience lasts."""
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0


class EngineGone(Exception):
    """The engine refused connections for as long as the consumer waits for it."""


@contextmanager
def watched_engine(engine: Engine, patience_s: float | None, give_up: Callable[[], None]) -> Iterator[threading.Event]:
    """Look at the engine while the block is open, again and again.

    Once it has refused every look for `patience_s`, in seconds, the yielded event is set and `give_up` called; leaving
    the block then raises `EngineGone`. With a patience of None nobody looks.
    """
    gone = threading.Event()
    if patience_s is None:
        yield gone
        return
    watch = _EngineWatch(engine, patience_s, gone, give_up)
    with Loop("engine-watch", watch.look, interval_s=patience_s / _LOOKS):
        yield gone
    if gone.is_set():
        raise EngineGone


class _EngineWatch:
    def __init__(self, engine: Engine, patience_s: float, gone: threading.Event, give_up: Callable[[], None]) -> None:
        self._engine = engine
        self._patience_s = patience_s
        self._gone = gone
        self._give_up = give_up
        self._refused_since: float | None = None

    def look(self) -> None:
        """An engine that is slow, or answers with an error, does not refuse."""
        try:
            self._engine.check()
        except EngineRefused as error:
            self._note_refused(error)
        except EngineUnavailable:
            self._refused_since = None
        else:
            self._refused_since = None

    def _note_refused(self, error: EngineRefused) -> None:
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        if not self._gone.is_set() and now - self._refused_since >= self._patience_s:
            logger.error(
                "the engine has refused connections for %g s: this consumer ends, so that its next start connects "
                "anew; what runs is kept: %s",
                self._patience_s,
                error,
            )
            self._gone.set()
            self._give_up()


class Complaint:
    """Says of a fault that lasts when to log it: at once, then after pauses that double, up to a minute."""

    def __init__(self) -> None:
        self._pause_s = _FIRST_PAUSE_S
        self._due_at = 0.0

    def is_due(self) -> bool:
        """Whether to log it now."""
        now = time.monotonic()
        if now < self._due_at:
            return False
        self._due_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return True

    def is_over(self) -> None:
        """The fault has passed; the next one is logged at once."""
        self._pause_s = _FIRST_PAUSE_S
        self._due_at = 0.0
