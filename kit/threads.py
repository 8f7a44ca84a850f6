"""Side threads that cannot die unheard. Outside `kit` nothing starts a thread in any other way."""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class SupervisedThread:
    """A named daemon thread that runs `work` once, and again after each failure until it returns.

    An exception that `work` lets out is logged with its traceback, and `work` runs again `pause_s` later. Where a
    second run would be unsafe, `on_failure` runs in its place; it is repeated until it returns, and then the thread
    ends. Once `stopped` is set nothing is repeated.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        *,
        pause_s: float = 2.0,
        stopped: threading.Event | None = None,
        on_failure: Callable[[], object] | None = None,
    ) -> None:
        self._name = name
        self._work = work
        self._pause_s = pause_s
        self._stopped = stopped or threading.Event()
        self._on_failure = on_failure
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the thread was started and has not ended."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; once per object."""
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the thread's end, at most `timeout_s`. One that was never started has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        if self._returns(self._work):
            return
        if self._on_failure is not None:
            self._repeat(self._on_failure)
        elif not self._stopped.wait(self._pause_s):
            self._repeat(self._work)

    def _repeat(self, step: Callable[[], object]) -> None:
        while not self._returns(step):
            if self._stopped.wait(self._pause_s):
                return

    def _returns(self, step: Callable[[], object]) -> bool:
        try:
            step()
        # SystemExit as well: in a thread it ends nothing but the thread, and silently.
        except BaseException:
            if step is self._work and self._on_failure is not None:
                logger.exception("the thread %s failed; what depends on it is ended", self._name)
            else:
                logger.exception("the thread %s failed; it is repeated in %g s", self._name, self._pause_s)
            return False
        return True
