"""Keeps containers of one consumer from overlapping on its GPU."""

import threading
import time
from collections.abc import Callable

from job_consumer.engine import EngineUnavailable, RunKey

_LIMIT_S = 120.0
"""Longer than a lease: whoever lost the GPU knows by then, and its container is gone."""
_CHECK_S = 0.2


class GpuGate:
    """Passes one container at a time, and beside it only such as share the GPU, if it does.

    Who gets the GPU is decided by the private API. But it gives the GPU on when a lease expires, and the container of
    the old holder, on a consumer that was frozen for as long, still runs then: here the new one waits for its end.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[RunKey, bool] = {}

    def enter(self, key: RunKey, *, shares: bool, check: Callable[[], object]) -> None:
        """Wait until the container may start. `check` is called meanwhile and raises what ends the waiting.

        Raises `EngineUnavailable` where that takes too long. Nothing to do for one that is inside.
        """
        deadline = time.monotonic() + _LIMIT_S
        while not self._try(key, shares):
            check()
            if time.monotonic() > deadline:
                raise EngineUnavailable("another container of this consumer does not leave the GPU")
            with self._changed:
                self._changed.wait(_CHECK_S)

    def leave(self, key: RunKey) -> None:
        """The container is gone. Nothing to do for one that is not inside."""
        with self._changed:
            self._inside.pop(key, None)
            self._changed.notify_all()

    def _try(self, key: RunKey, shares: bool) -> bool:
        with self._changed:
            others = [shared for inside, shared in self._inside.items() if inside != key]
            if others and not (shares and all(others)):
                return False
            self._inside[key] = shares
            return True
