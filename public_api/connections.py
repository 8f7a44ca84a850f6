"""Connections to the private API, one for each open call, and those that wait for the next one.

httpx's own pool looks at every open connection whenever a call begins or ends: two thousand long polls cost a core.
Here a connection is a transport of httpx with a pool of one.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator

import httpx
from anyio import CancelScope

from public_api.transport import LargeReads

IDLE_S = 2.0
"""Idle connections are dropped before the private API closes them, which it does after 75 s."""
_LIMITS = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_S)


class Connections(httpx.AsyncBaseTransport):
    """Takes the connection that was given back last, or makes one. It belongs to one event loop."""

    def __init__(self, *, most_idle: int = 100) -> None:
        self._most_idle = most_idle
        self._idle: deque[tuple[float, httpx.AsyncHTTPTransport]] = deque()
        """In the order in which they were given back, with that time by the event loop's clock."""
        # The private API speaks plain HTTP. Without one, each transport would read the certificates of the host.
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer, whose connection is given back when it is closed. Raises `httpx.TransportError`."""
        transport = self._idle.pop()[1] if self._idle else self._connect()
        try:
            answer = await transport.handle_async_request(request)
        except BaseException:
            # What failed or was given up is closed by then, and the transport as good as new.
            await self.give_back(transport)
            raise
        assert isinstance(answer.stream, httpx.AsyncByteStream)  # noqa: S101 - an asynchronous transport's
        answer.stream = _Stream(self, transport, answer.stream)
        return answer

    async def give_back(self, transport: httpx.AsyncHTTPTransport) -> None:
        """Keep a connection for the next call."""
        now = asyncio.get_running_loop().time()
        self._idle.append((now, transport))
        # Whoever is cancelled must not leave one half closed.
        with CancelScope(shield=True):
            while self._idle and (len(self._idle) > self._most_idle or self._idle[0][0] < now - IDLE_S):
                await self._idle.popleft()[1].aclose()

    async def aclose(self) -> None:
        """Close what is idle; open calls close what they have."""
        while self._idle:
            await self._idle.pop()[1].aclose()

    def _connect(self) -> httpx.AsyncHTTPTransport:
        return LargeReads(self._context, _LIMITS)


class _Stream(httpx.AsyncByteStream):
    """The body of an answer."""

    def __init__(
        self, connections: Connections, transport: httpx.AsyncHTTPTransport, stream: httpx.AsyncByteStream
    ) -> None:
        self._connections = connections
        self._transport: httpx.AsyncHTTPTransport | None = transport
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            yield piece

    async def aclose(self) -> None:
        """Give the connection back, once."""
        transport, self._transport = self._transport, None
        try:
            await self._stream.aclose()
        finally:
            if transport is not None:
                await self._connections.give_back(transport)
