"""Keeps containers of one consumer from overlapping on its GPU."""

import threading
import time
from collections.abc import Callable

from job_consumer.engines import EngineUnavailable, RunKey

_LIMIT_S = 120.0
"""Longer than a lease: by then the previous holder knows that it lost the GPU, and its container is gone."""
_CHECK_S = 0.2


class GpuGate:
    """Lets one container at a time onto the GPU, or several that all share it.

    The private API decides which attempt gets the GPU. When a lease expires it gives the GPU to another attempt; if
    this consumer was frozen meanwhile, the old container may still run. Here the new container waits for its end.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[RunKey, bool] = {}

    def enter(self, key: RunKey, *, shares: bool, check: Callable[[], object]) -> None:
        """Wait until the container may start; returns at once if it is inside already.

        `check` is called meanwhile and raises to end the wait. Raises `EngineUnavailable` after two minutes.
        """
        deadline = time.monotonic() + _LIMIT_S
        while not self._try(key, shares):
            check()
            if time.monotonic() > deadline:
                raise EngineUnavailable("another container of this consumer does not leave the GPU")
            with self._changed:
                self._changed.wait(_CHECK_S)

    def occupy(self, key: RunKey) -> None:
        """Note that a container is on the GPU which this process did not let in: an earlier one did."""
        with self._changed:
            self._inside[key] = False

    def inside(self) -> set[RunKey]:
        """The containers on the GPU."""
        with self._changed:
            return set(self._inside)

    def leave(self, key: RunKey) -> None:
        """Note that the container is gone. Does nothing for one that is not inside."""
        with self._changed:
            self._inside.pop(key, None)
            self._changed.notify_all()

    def is_occupied(self) -> bool:
        """Whether any container of this consumer is on the GPU, or about to be."""
        with self._changed:
            return bool(self._inside)

    def _try(self, key: RunKey, shares: bool) -> bool:
        with self._changed:
            others = [shared for inside, shared in self._inside.items() if inside != key]
            if key not in self._inside and others and not (shares and all(others)):
                return False
            self._inside[key] = shares
            return True
