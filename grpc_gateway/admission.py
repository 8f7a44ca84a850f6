"""How much one gateway process takes on at once. Unary calls that it answers itself are not counted."""

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc

from grpc_gateway.statuses import StatusError


class CallClass(Enum):
    """What a call counts as: one that computes and ends, or a stream that may stay open."""

    INFER = "infer"
    STREAM = "stream"
    LOCAL = "local"
    """A stream to the gateway itself, such as a watch on health; some of them need no key."""


MOST_WITHOUT_KEY = 100
"""Local streams of one caller who was asked for no key: a load balancer watches one for each of its connections."""
_NAMES = {
    CallClass.INFER: ("calls", "GRPC_MAX_IN_FLIGHT"),
    CallClass.STREAM: ("streams", "GRPC_MAX_STREAMS"),
    CallClass.LOCAL: ("streams", "GRPC_MAX_STREAMS"),
}


@dataclass(frozen=True)
class Limits:
    """The limits of a whole gateway; each of its `workers` processes takes its share."""

    workers: int = 1
    max_in_flight: int = 16384
    max_streams: int = 4096
    max_bytes_in_flight: int = 4 * 1024**3

    def share(self, amount: int) -> int:
        """One process's part of what all of them may have together; at least one."""
        return max(1, amount // self.workers)


class Admission:
    """Counts what this process has under way against its share of the limits, and of each caller against the caller's.

    A caller is who `Call.holder` says. One caller leaves a quarter to the others, and those who need no key to be
    answered leave a quarter to those who have one.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        streams = limits.share(limits.max_streams)
        calls = limits.share(limits.max_in_flight)
        self._most = {CallClass.INFER: calls, CallClass.STREAM: streams, CallClass.LOCAL: streams}
        self._open = dict.fromkeys(CallClass, 0)
        self._without_key = 0
        """Local streams of callers who were asked for no key."""
        self._held_places: Counter[tuple[CallClass, str]] = Counter()
        self._bytes = 0
        self._held_bytes: Counter[str] = Counter()
        self._most_bytes = limits.share(limits.max_bytes_in_flight)

    def enter(self, call_class: CallClass, holder: str, *, needs_key: bool = True) -> None:
        """Count a call until `leave`. Raises `StatusError` if there are too many, in all or of this caller."""
        what, variable = _NAMES[call_class]
        most, held = self._most[call_class], self._held_places[call_class, holder]
        if self._open[call_class] >= most:
            raise _exhausted(f"The gateway has {self._open[call_class]} {what} open already ({variable}).")
        if held >= _part(most) or (not needs_key and held >= MOST_WITHOUT_KEY):
            raise _exhausted(
                f"This caller has {held} {what} open already, the most for one; the gateway takes {most} ({variable})."
            )
        if not needs_key and self._without_key >= _part(most):
            raise _exhausted(
                f"Callers without a key have {self._without_key} {what} open already, the most for all of them; the "
                f"gateway takes {most} ({variable})."
            )
        self._open[call_class] += 1
        self._held_places[call_class, holder] += 1
        self._without_key += not needs_key

    def leave(self, call_class: CallClass, holder: str, *, needs_key: bool = True) -> None:
        """Stop counting the call: it is over."""
        self._open[call_class] -= 1
        self._without_key -= not needs_key
        _take(self._held_places, (call_class, holder), 1)

    def hold(self, size_bytes: int, holder: str) -> None:
        """Count a request's message until `drop`. Raises `StatusError` if too much is held already.

        One message always passes when no other of its caller is held, whatever its size, unless others hold all.
        """
        held = self._held_bytes[holder]
        if self._bytes and self._bytes + size_bytes > self._most_bytes:
            raise _exhausted(
                f"The gateway holds {self._bytes} bytes of messages already, and this one has {size_bytes} "
                "(GRPC_MAX_BYTES_IN_FLIGHT)."
            )
        if held and held + size_bytes > _part(self._most_bytes):
            raise _exhausted(
                f"The gateway holds {held} bytes of messages of this caller already, and this one has {size_bytes}; "
                f"it takes {self._most_bytes} in all (GRPC_MAX_BYTES_IN_FLIGHT)."
            )
        self.hold_response(size_bytes, holder)

    def hold_response(self, size_bytes: int, holder: str) -> None:
        """Count a response's message until `drop`. It is never refused: its work is done."""
        self._bytes += size_bytes
        self._held_bytes[holder] += size_bytes

    def drop(self, size_bytes: int, holder: str) -> None:
        """Stop counting the message: it was passed on."""
        self._bytes -= size_bytes
        _take(self._held_bytes, holder, size_bytes)


def _part(amount: int) -> int:
    """What one of several may have of an amount: three quarters of it, rounded up."""
    return -(-3 * amount // 4)


def _take(counter: Counter[Any], key: Any, amount: int) -> None:
    """Take it off, and forget who has nothing left: callers come and go."""
    counter[key] -= amount
    if not counter[key]:
        del counter[key]


def _exhausted(text: str) -> StatusError:
    return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{text} Try again later.")
