"""Chooses the replica for a call by what is open on each and whether it could be reached: no channel, no clock."""

import hashlib
from collections.abc import Collection, Sequence
from random import sample
from typing import TypeVar

from grpc_gateway.admission import CallClass


class Candidate:
    """What the choice knows of a replica."""

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.open = {CallClass.INFER: 0, CallClass.STREAM: 0}
        self.down_until = 0.0
        """On the event loop's clock: until then a replica that could not be reached goes last."""
        self._seed = uid.encode()

    @property
    def in_flight(self) -> int:
        """Calls and streams open on it."""
        return self.open[CallClass.INFER] + self.open[CallClass.STREAM]

    def rank(self, affinity: bytes) -> bytes:
        """Its rank for calls with this affinity: the highest gets them, in every process (rendezvous hashing)."""
        return hashlib.blake2b(affinity, digest_size=8, key=self._seed[:64]).digest()


C = TypeVar("C", bound=Candidate)


def choose(
    replicas: Sequence[C], call_class: CallClass, most: int, *, affinity: str, avoid: Collection[C], now: float
) -> C | None:
    """The replica for a call, or None if each has `most` calls of this class open.

    Calls with an affinity get the same replica while it has room; others the less loaded of two random ones.
    """
    if len(replicas) == 1 and not avoid:
        return replicas[0] if replicas[0].open[call_class] < most else None
    free = [replica for replica in replicas if replica.open[call_class] < most and replica not in avoid]
    # One that could not be reached a moment ago is better than none.
    free = [replica for replica in free if replica.down_until <= now] or free
    if not free:
        return None
    if affinity:
        encoded = affinity.encode()
        return max(free, key=lambda replica: replica.rank(encoded))
    # Finding the less loaded of two needs no view of all, and does not send every process to the same replica.
    return min(sample(free, 2), key=lambda replica: replica.in_flight) if len(free) > 1 else free[0]
