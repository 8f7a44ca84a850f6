"""How many requests each owner makes in a second at this process."""

import threading
import time
from collections import Counter
from collections.abc import Callable

from contract.access import Caller
from contract.quotas import Quota
from private_api.quotas.limits import Limits
from private_api.quotas.refusals import refuse

_RETRY_AFTER_S = 1


class RequestCounts:
    """Counts the requests of each owner in the second that runs. Thread-safe.

    Whole seconds need no memory of earlier ones. The price: around the turn of one an owner may make twice its limit.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` says the seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._second = 0
        self._made: Counter[str] = Counter()

    def count(self, owner: str) -> int:
        """How many the owner made in this second."""
        with self._lock:
            return self._of_this_second()[owner]

    def enter(self, caller: Caller, limits: Limits) -> None:
        """Count a request. Raises `QuotaExceeded` in place of one too many."""
        if caller.owner is None:
            return
        limit = limits[Quota.REQUESTS]
        with self._lock:
            made = self._of_this_second()
            used = made[caller.owner]
            if limit is not None and used >= limit:
                said = f"{used} of {limit} requests of this second were made; ask less often, or poll with ?wait=60"
                raise refuse(Quota.REQUESTS, limit, used, said, _RETRY_AFTER_S)
            made[caller.owner] += 1

    def _of_this_second(self) -> Counter[str]:
        if (second := int(self._clock())) != self._second:
            self._second = second
            self._made.clear()
        return self._made
