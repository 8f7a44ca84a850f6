"""How every service runs its ASGI app: in the main thread until a signal, or in a thread beside other services."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from kit.http_pace import PacedProtocol
from kit.http_protocol import DecliningProtocol
from kit.threads import SupervisedThread

logger = logging.getLogger(__name__)

_SHUTDOWN_S = 5
"""How long open requests, such as long polls, may continue after the stop."""
_START_S = 30
_KEEP_ALIVE_S = 75
"""Longer than clients wait between two polls: one that is sent as the server closes the connection is lost."""
_LET_GO_S = 0.05
"""For the loop to let go of listeners that were closed."""
_STOPPING = "inference_server.stopping"


def stopping_of(scope: Scope) -> asyncio.Event:
    """Set once the server of this request stops: what would go on for ever ends then."""
    event: asyncio.Event = scope.get("extensions", {}).get(_STOPPING) or asyncio.Event()
    return event


class _Server(uvicorn.Server):
    """A server that tells its open requests when it stops, before it waits for them."""

    def __init__(self, app: ASGIApp, host: str, port: int, *, is_door: bool) -> None:
        self._protocol = PacedProtocol if is_door else DecliningProtocol
        self._stopping = asyncio.Event()

        async def telling(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[_STOPPING] = self._stopping
            await app(scope, receive, send)

        super().__init__(_config(telling, host, port, self._protocol))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; whoever has connected by now is served."""
        self._stopping.set()
        await self._accept_the_last(sockets or [])
        await super().shutdown(sockets)

    async def _accept_the_last(self, sockets: list[socket.socket]) -> None:
        """Close the listeners, and accept what waits there: the kernel would reset it."""
        # Further descriptors, by which the listeners stay until nothing waits any more.
        open_ones = [
            socket.socket(fileno=os.dup(each.fileno())) for server in self.servers for each in server.sockets or ()
        ]
        for server in self.servers:
            server.close()
        for each in sockets:
            each.close()
        await asyncio.sleep(_LET_GO_S)
        accepted = [connection for listener in open_ones for connection in _accept_all(listener)]
        loop = asyncio.get_running_loop()
        for connection in accepted:
            # Its client may be gone again, which must not keep the server from stopping in order.
            with suppress(OSError):
                await loop.connect_accepted_socket(self._make_protocol, connection)

    def _make_protocol(self) -> asyncio.Protocol:
        return self._protocol(self.config, self.server_state, self.lifespan.state)


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    """Accept until nothing waits, and close the listener at once."""
    accepted = []
    listener.setblocking(False)
    with listener, suppress(OSError):
        while True:
            accepted.append(listener.accept()[0])
    return accepted


def _config(app: ASGIApp, host: str, port: int, protocol: type[DecliningProtocol]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol,
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE_S,
        # The service's own logging stays. Access lines would contain uids, and are the proxy's job.
        log_config=None,
        access_log=False,
        server_header=False,
        # Whether a proxy is in front is for the service to say; this would believe whoever is on the same host.
        proxy_headers=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        lifespan="on",
    )


def serve(app: ASGIApp, host: str, port: int, *, is_door: bool = False) -> None:
    """Serve until SIGTERM or SIGINT. At a door, requests of whoever comes are refused if they are too slow."""
    _Server(app, host, port, is_door=is_door).run()


@contextmanager
def serve_in_thread(app: ASGIApp, host: str, port: int, *, is_door: bool = False) -> Iterator[int]:
    """Serve while the block is open. Yields the port; `port` 0 picks a free one. `is_door` as for `serve`.

    Raises `OSError` if the server cannot start, for example because the port is taken.
    """
    server = _Server(app, host, port, is_door=is_door)
    sockets = [server.config.bind_socket()]
    thread = SupervisedThread(
        f"http-{port}",
        lambda: server.run(sockets),
        # Its sockets are closed by then.
        on_failure=lambda: logger.error("nothing answers on %s:%s any more: start the server again", host, port),
    )
    thread.start()
    try:
        ends_at = time.monotonic() + _START_S
        while not server.started:
            if not thread.is_alive or time.monotonic() > ends_at:
                raise OSError(f"the HTTP server on {host}:{port} did not start")
            thread.join(0.01)
        yield sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(_SHUTDOWN_S + 5)
        for each in sockets:
            each.close()
