"""How much one gateway process takes on at once. Unary calls that the gateway answers itself pass by."""

from dataclasses import dataclass
from enum import Enum

import grpc

from grpc_gateway.statuses import Refusal


class Lane(Enum):
    """How a call counts: as one that computes and ends, or as a stream that may stay open."""

    INFER = "infer"
    STREAM = "stream"
    LOCAL = "local"
    """A stream to the gateway itself, such as a watch on health: some may stay open without any key."""


@dataclass(frozen=True)
class Limits:
    """Of a whole gateway; each of its `workers` processes takes its share."""

    workers: int = 1
    max_in_flight: int = 16384
    max_streams: int = 4096
    max_bytes_in_flight: int = 4 * 1024**3

    def share(self, amount: int) -> int:
        """One process's part of what all may have together; at least one."""
        return max(1, amount // self.workers)


class Lanes:
    """What this process has under way, against its share of the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open = dict.fromkeys(Lane, 0)
        streams = limits.share(limits.max_streams)
        self._most = {Lane.INFER: limits.share(limits.max_in_flight), Lane.STREAM: streams, Lane.LOCAL: streams}
        self._bytes = 0
        self._most_bytes = limits.share(limits.max_bytes_in_flight)

    def enter(self, lane: Lane) -> None:
        """Count a call; every one is followed by `leave`. Raises `Refusal` where there are too many."""
        if self._open[lane] >= self._most[lane]:
            what = "calls" if lane is Lane.INFER else "streams"
            variable = "GRPC_MAX_IN_FLIGHT" if lane is Lane.INFER else "GRPC_MAX_STREAMS"
            raise Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"The gateway has {self._open[lane]} {what} open already ({variable}). Try again later.",
            )
        self._open[lane] += 1

    def leave(self, lane: Lane) -> None:
        """The call is over."""
        self._open[lane] -= 1

    def hold(self, size_bytes: int) -> None:
        """Count a request's message; it is followed by `drop`. Raises `Refusal` where too much is held already.

        One message always passes when no other is held, whatever its size.
        """
        if self._bytes and self._bytes + size_bytes > self._most_bytes:
            raise Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"The gateway holds {self._bytes} bytes of messages already, and this one has {size_bytes} "
                "(GRPC_MAX_BYTES_IN_FLIGHT). Try again later.",
            )
        self._bytes += size_bytes

    def hold_response(self, size_bytes: int) -> None:
        """Count a response's message. It is never refused: its work is done."""
        self._bytes += size_bytes

    def drop(self, size_bytes: int) -> None:
        """The message was passed on."""
        self._bytes -= size_bytes
