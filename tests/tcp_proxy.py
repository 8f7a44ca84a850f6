"""A TCP proxy that can break: it stands between a client and a real service."""

import asyncio
import socket
import struct
from enum import StrEnum
from threading import Thread
from types import TracebackType
from typing import Self, cast
from urllib.parse import urlsplit


class Mode(StrEnum):
    """What happens to connections, the open ones and the new ones."""

    PASS = "pass"
    """Bytes pass, those that a blackhole held back first."""
    REFUSE = "refuse"
    """Nothing listens; the open connections are reset."""
    BLACKHOLE = "blackhole"
    """Connections stay open and nothing passes."""
    RESET = "reset"
    """Every connection is reset."""
    GONE = "gone"
    """As with a host without power: connections stay open and nothing passes, new ones are not made."""


class TcpProxy:
    """Listens on a free port of the loopback, which it keeps through every mode. One thread, one event loop."""

    def __init__(self, target: str, default_port: int, *, heard: bytearray | None = None) -> None:
        """`target` is a URL or `//host:port`, or the `unix://` URL of a socket. `heard` takes all that passes."""
        self.heard = heard
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or default_port)
        self._url = parts
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="tcp-proxy")
        self._server: asyncio.Server | None = None
        self._mode = Mode.PASS
        self._ends: set[_End] = set()
        # Never listened on: while the proxy does not listen, its port must not become another process's.
        self._held = _bound(0)
        self.port: int = self._held.getsockname()[1]

    @property
    def url(self) -> str:
        """The target's URL, led through the proxy."""
        user, at, _ = self._url.netloc.rpartition("@")
        return self._url._replace(netloc=f"{user}{at}127.0.0.1:{self.port}").geturl()

    def set_mode(self, mode: Mode) -> None:
        """Return once the mode holds."""
        asyncio.run_coroutine_threadsafe(self._apply(mode), self._loop).result(60)

    def __enter__(self) -> Self:
        self._thread.start()
        self.set_mode(Mode.PASS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()
        self._held.close()

    async def _apply(self, mode: Mode) -> None:
        self._mode = mode
        if mode in (Mode.REFUSE, Mode.RESET):
            for end in list(self._ends):
                end.reset()
        else:
            for end in list(self._ends):
                end.update()
        if mode in (Mode.REFUSE, Mode.GONE):
            if self._server is not None:
                self._server.close()
            self._server = None
        elif self._server is None:
            self._server = await self._loop.create_server(lambda: _End(self), sock=_bound(self.port))
        # One turn of the loop, in which the transports that were aborted close their sockets.
        await asyncio.sleep(0)

    async def _stop(self) -> None:
        await self._apply(Mode.REFUSE)
        joining = asyncio.all_tasks() - {asyncio.current_task()}
        for task in joining:
            task.cancel()
        await asyncio.gather(*joining, return_exceptions=True)

    async def _join(self, end: "_End") -> None:
        """Connect an accepted end to the target."""
        try:
            if self._url.scheme == "unix":
                _, peer = await self._loop.create_unix_connection(lambda: _End(self, end), self._url.path)
            else:
                _, peer = await self._loop.create_connection(lambda: _End(self, end), *self._target)
        except OSError:
            end.reset()
            return
        end.peer = peer
        end.update()
        if end.transport.is_closing():
            peer.reset()

    @property
    def passes(self) -> bool:
        return self._mode is Mode.PASS

    @property
    def resets(self) -> bool:
        return self._mode in (Mode.RESET, Mode.REFUSE)

    def accepted(self, end: "_End") -> asyncio.Task[None]:
        return self._loop.create_task(self._join(end))

    def add(self, end: "_End") -> None:
        self._ends.add(end)

    def discard(self, end: "_End") -> None:
        self._ends.discard(end)


def _bound(port: int) -> socket.socket:
    """A socket on this port of the loopback, which several sockets of this user may share; 0 picks a free one."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


class _End(asyncio.Protocol):
    """One socket; what it reads, its peer writes. It reads only when there is a peer and the proxy passes."""

    def __init__(self, proxy: TcpProxy, peer: "_End | None" = None) -> None:
        self._proxy = proxy
        self.peer = peer
        self.transport: asyncio.Transport
        self._joining: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._proxy.add(self)
        if self._proxy.resets:
            self.reset()
            return
        self.update()
        if self.peer is None:
            self._joining = self._proxy.accepted(self)

    def data_received(self, data: bytes) -> None:
        if self._proxy.heard is not None:
            self._proxy.heard.extend(data)
        if self.peer is not None:
            self.peer.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._proxy.discard(self)
        if self.peer is not None:
            self.peer.transport.close()

    def update(self) -> None:
        """Read or do not, as the mode says."""
        if self.transport.is_closing():
            return
        if self._proxy.passes and self.peer is not None:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def reset(self) -> None:
        """Close with RST."""
        raw = self.transport.get_extra_info("socket")
        if raw is not None and not self.transport.is_closing():
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
