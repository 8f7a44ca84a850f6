"""An incoming call, as everything behind the door sees it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc

from contract.access import ANONYMOUS, Caller
from grpc_gateway.deployments import Deployment
from grpc_gateway.headers import Headers
from grpc_gateway.statuses import Metadata, StatusError


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes: a deployment, and the method's full path as its replicas know it."""

    deployment: Deployment
    path: str
    affinity: str = ""
    """The sequence that the call's first message is part of, if metadata names nothing that binds it to a replica."""


class Call:
    """What came in (path, metadata, caller) and the way back.

    It belongs to one asyncio task. `read` and `write` are for calls that stream; a unary handler gets its request.
    """

    __slots__ = (
        "_context",
        "_ended_with",
        "_unread",
        "caller",
        "deployment",
        "headers",
        "holder",
        "is_inside",
        "path",
        "trailers",
    )

    def __init__(self, path: str, headers: Headers, deployment: Deployment | None = None) -> None:
        self.path = path
        """`/package.Service/Method`, without a prefix."""
        self.headers = headers
        self.deployment = deployment
        """The deployment that the prefix of the path names; None without a prefix."""
        self.caller: Caller = ANONYMOUS
        self.holder = ""
        """Who holds what the call takes: the key's owner or, without a key, where it comes from."""
        self.is_inside = False
        """Whether it came where only containers of deployments call."""
        self.trailers: list[tuple[str, str | bytes]] = []
        """Trailing metadata of the reply; the door adds the request id."""
        self._context: grpc.aio.ServicerContext[bytes, bytes] | Any = None
        self._unread: list[bytes] = []
        self._ended_with: StatusError | None = None

    def bind(self, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        """Begin the call. Only the door does this."""
        self._context = context

    @property
    def peer(self) -> str:
        """The other end of the connection, as gRPC names it."""
        peer: str = self._context.peer()
        return peer

    async def read(self) -> bytes | None:
        """The caller's next message; None after its last."""
        if self._unread:
            return self._unread.pop()
        message = await self._context.read()
        # grpc marks the end of a stream with an object of its own, not with bytes.
        return message if isinstance(message, bytes) else None

    def unread(self, message: bytes) -> None:
        """Have the next `read` return `message` again."""
        self._unread.append(message)

    async def requests(self) -> AsyncIterator[bytes]:
        """The caller's messages from here on."""
        while (message := await self.read()) is not None:
            yield message

    async def write(self, message: bytes) -> None:
        """Send one message. It waits while the caller does not read, so await it before making the next one."""
        await self._context.write(message)

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Send metadata ahead of the first message; at most once."""
        await self._context.send_initial_metadata(metadata)

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""
        remaining: float | None = self._context.time_remaining()
        return remaining

    @property
    def ended_with(self) -> StatusError | None:
        """The status with which the gateway itself ended the call, if it did."""
        return self._ended_with

    def end_with(self, error: StatusError) -> None:
        """Note why the gateway is about to cancel the call's task."""
        self._ended_with = error
