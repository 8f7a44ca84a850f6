"""The one shape of a background loop: a named thread that repeats one step, and stops when told.

Tests call `step` without the thread.
"""

import logging
import threading
from collections.abc import Callable
from typing import Self

logger = logging.getLogger(__name__)


class Loop:
    """Calls `step` every `interval_s`, or at once after `wake`. A step that fails is logged and tried again."""

    def __init__(self, name: str, step: Callable[[], object], *, interval_s: float) -> None:
        self._name = name
        self._step = step
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; once per object."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Let the next step begin now. From any thread."""
        self._wake.set()

    def stop(self, timeout_s: float = 10) -> None:
        """Stop after the step in progress; waits for it at most `timeout_s`."""
        self._stopped.set()
        self._wake.set()
        if self._thread is not None:
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
            try:
                self._step()
            except Exception:
                logger.exception("%s: a step failed; it is repeated in %s s", self._name, self._interval_s)
                self._stopped.wait(self._interval_s)
                continue
            self._wake.wait(self._interval_s)
