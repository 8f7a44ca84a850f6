"""One incoming call, as everything behind the door sees it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc

from grpc_gateway.callers import ANONYMOUS, Caller
from grpc_gateway.deployments import Deployment
from grpc_gateway.headers import Headers
from grpc_gateway.statuses import Metadata, Refusal


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes: a deployment, and the method's full path as its replicas know it."""

    deployment: Deployment
    path: str


class Call:
    """What came in: where to, with which metadata, by whom; and the way back.

    It belongs to one task. `read` and `write` are for calls that stream; a unary handler is given its request.
    """

    __slots__ = ("_context", "_ended_with", "_unread", "caller", "deployment", "headers", "path", "trailers")

    def __init__(self, path: str, headers: Headers, deployment: Deployment | None = None) -> None:
        self.path = path
        """`/package.Service/Method`, without a prefix."""
        self.headers = headers
        self.deployment = deployment
        """Where the prefix of the path led; None for a call without one."""
        self.caller: Caller = ANONYMOUS
        self.trailers: list[tuple[str, str | bytes]] = []
        """Trailing metadata of the reply; the door adds the request id."""
        self._context: grpc.aio.ServicerContext[bytes, bytes] | Any = None
        self._unread: list[bytes] = []
        self._ended_with: Refusal | None = None

    def bind(self, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        """The door's: the call begins."""
        self._context = context

    async def read(self) -> bytes | None:
        """The caller's next message, or None once it has sent its last."""
        if self._unread:
            return self._unread.pop()
        message = await self._context.read()
        # grpc's end of a stream is an object of its own, not bytes.
        return message if isinstance(message, bytes) else None

    def unread(self, message: bytes) -> None:
        """Let the next `read` give `message` again."""
        self._unread.append(message)

    async def requests(self) -> AsyncIterator[bytes]:
        """The caller's messages from here on."""
        while (message := await self.read()) is not None:
            yield message

    async def write(self, message: bytes) -> None:
        """Send one message to the caller. Waits while the caller does not read: await it before making the next."""
        await self._context.write(message)

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Send metadata before the first message; at most once, and not after a message."""
        await self._context.send_initial_metadata(metadata)

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None where it has none."""
        remaining: float | None = self._context.time_remaining()
        return remaining

    @property
    def ended_with(self) -> Refusal | None:
        """What the gateway itself ended the call with, while it was under way."""
        return self._ended_with

    def end_with(self, refusal: Refusal) -> None:
        """Note why the call's task is about to be cancelled by the gateway itself."""
        self._ended_with = refusal
