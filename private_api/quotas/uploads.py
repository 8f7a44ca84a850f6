"""How many zips of each owner arrive at once at this process."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from contract.access import Caller
from contract.quotas import Quota
from private_api.quotas.limits import Limits
from private_api.quotas.refusals import refuse

_RETRY_AFTER_S = 5
"""An upload may end any moment."""


class UploadPlaces:
    """Counts the uploads of each owner. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    def count(self, owner: str) -> int:
        """How many of the owner's uploads are open."""
        with self._lock:
            return self._open[owner]

    @contextmanager
    def occupy(self, caller: Caller, limits: Limits) -> Iterator[None]:
        """A place for one upload. Raises `QuotaExceeded`."""
        if caller.owner is None:
            yield
            return
        self._enter(caller.owner, limits[Quota.UPLOADS])
        try:
            yield
        finally:
            with self._lock:
                self._open[caller.owner] -= 1
                # Counters keep zeros.
                self._open += Counter()

    def _enter(self, owner: str, limit: int | None) -> None:
        with self._lock:
            used = self._open[owner]
            if limit is not None and used >= limit:
                said = f"{used} of {limit} uploads are under way; send this one when one of them has ended"
                raise refuse(Quota.UPLOADS, limit, used, said, _RETRY_AFTER_S)
            self._open[owner] += 1
