"""Which consumer, of which owner, an attempt was given to: asked before every call of it, and kept for a while.

It cannot change while the attempt holds its task. Whether it still does is not kept: the call itself looks, in the
transaction in which it writes.
"""

import math
import threading
import time
from collections import OrderedDict

from private_api.database import Database
from private_api.leases import LEASE
from private_api.placement.consumers import check_attempt

_KEPT_S = LEASE.total_seconds() / 2
"""A name changes hands only after it was silent for a lease."""
_MOST = 10_000


class Holders:
    """Remembers who was found to hold an attempt. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int, str | None], tuple[float, str]] = OrderedDict()

    def find(self, uid: str, fence: int, *, owner: str | None) -> str | None:
        """The consumer of an attempt that this owner was found to hold of late; None if that must be looked up."""
        with self._lock:
            at, consumer = self._kept.get((uid, fence, owner), (-math.inf, None))
        return consumer if time.monotonic() - at < _KEPT_S else None

    def check(self, database: Database, uid: str, fence: int, *, owner: str | None) -> str | None:
        """As `check_attempt`, and remember the answer. Refusals are not remembered, nor attempts that are unknown."""
        now = time.monotonic()
        consumer = check_attempt(database, uid, fence, owner=owner)
        if consumer is not None:
            self._keep(uid, fence, owner, now, consumer)
        return consumer

    def note_claim(self, uid: str, fence: int, *, owner: str | None, consumer: str) -> None:
        """The consumer, which is this owner's, was given the attempt right now."""
        self._keep(uid, fence, owner, time.monotonic(), consumer)

    def _keep(self, uid: str, fence: int, owner: str | None, at: float, consumer: str) -> None:
        with self._lock:
            self._kept[uid, fence, owner] = (at, consumer)
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)

    def recheck(self, database: Database, uid: str, fence: int, *, owner: str | None) -> None:
        """Ask again, of an attempt that is over. Raises `PermissionDenied` if its consumer went to another owner."""
        with self._lock:
            self._kept.pop((uid, fence, owner), None)
        check_attempt(database, uid, fence, owner=owner)
