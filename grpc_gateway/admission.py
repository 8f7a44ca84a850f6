"""How much one gateway process takes on at once. Unary calls that it answers itself are not counted."""

from dataclasses import dataclass
from enum import Enum

import grpc

from grpc_gateway.statuses import StatusError


class CallClass(Enum):
    """What a call counts as: one that computes and ends, or a stream that may stay open."""

    INFER = "infer"
    STREAM = "stream"
    LOCAL = "local"
    """A stream to the gateway itself, such as a watch on health; some of them need no key."""


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
    """Counts what this process has under way against its share of the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open = dict.fromkeys(CallClass, 0)
        streams = limits.share(limits.max_streams)
        self._most = {
            CallClass.INFER: limits.share(limits.max_in_flight),
            CallClass.STREAM: streams,
            CallClass.LOCAL: streams,
        }
        self._bytes = 0
        self._most_bytes = limits.share(limits.max_bytes_in_flight)

    def enter(self, call_class: CallClass) -> None:
        """Count a call until `leave`. Raises `StatusError` if there are too many."""
        if self._open[call_class] >= self._most[call_class]:
            what = "calls" if call_class is CallClass.INFER else "streams"
            variable = "GRPC_MAX_IN_FLIGHT" if call_class is CallClass.INFER else "GRPC_MAX_STREAMS"
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"The gateway has {self._open[call_class]} {what} open already ({variable}). Try again later.",
            )
        self._open[call_class] += 1

    def leave(self, call_class: CallClass) -> None:
        """Stop counting the call: it is over."""
        self._open[call_class] -= 1

    def hold(self, size_bytes: int) -> None:
        """Count a request's message until `drop`. Raises `StatusError` if too much is held already.

        One message always passes when no other is held, whatever its size.
        """
        if self._bytes and self._bytes + size_bytes > self._most_bytes:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"The gateway holds {self._bytes} bytes of messages already, and this one has {size_bytes} "
                "(GRPC_MAX_BYTES_IN_FLIGHT). Try again later.",
            )
        self._bytes += size_bytes

    def hold_response(self, size_bytes: int) -> None:
        """Count a response's message until `drop`. It is never refused: its work is done."""
        self._bytes += size_bytes

    def drop(self, size_bytes: int) -> None:
        """Stop counting the message: it was passed on."""
        self._bytes -= size_bytes
