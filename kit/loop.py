"""The one shape of a background loop: a named thread that repeats one step until it is stopped.

Tests call `step` without the thread.
"""

import threading
from collections.abc import Callable
from typing import Self

from kit.threads import SupervisedThread


class Loop:
    """Calls `step` every `interval_s`, or at once after `wake`. A failed step is logged and repeated."""

    def __init__(self, name: str, step: Callable[[], object], *, interval_s: float) -> None:
        self._step = step
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._thread = SupervisedThread(name, self._run, pause_s=interval_s, stopped=self._stopped)

    def start(self) -> None:
        """Start the thread; once per object."""
        self._thread.start()

    def wake(self) -> None:
        """Let the next step begin now. May be called from any thread."""
        self._wake.set()

    def stop(self, timeout_s: float = 10) -> None:
        """Stop after the step in progress, and wait for it up to `timeout_s`."""
        self._stopped.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stopped.is_set():
            # Cleared before the step, so that a wake during the step is not lost.
            self._wake.clear()
            self._step()
            self._wake.wait(self._interval_s)
