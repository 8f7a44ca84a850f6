"""How every service runs its ASGI app: in the main thread until a signal, or in a thread beside other services."""

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from kit.http_protocol import DecliningProtocol
from kit.threads import SupervisedThread

logger = logging.getLogger(__name__)

_SHUTDOWN_S = 5
"""How long open requests, such as long polls, may continue after the stop."""
_START_S = 30
_KEEP_ALIVE_S = 75
"""Longer than clients wait between two polls: one that is sent as the server closes the connection is lost."""
_ACCEPTED_S = 0.05
"""For connections that have just been accepted to be known."""
_STOPPING = "inference_server.stopping"


def stopping_of(scope: Scope) -> asyncio.Event:
    """Set once the server of this request stops: what would go on for ever ends then."""
    event: asyncio.Event = scope.get("extensions", {}).get(_STOPPING) or asyncio.Event()
    return event


class _Server(uvicorn.Server):
    """A server that tells its open requests when it stops, before it waits for them."""

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._stopping = asyncio.Event()

        async def telling(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[_STOPPING] = self._stopping
            await app(scope, receive, send)

        super().__init__(_config(telling, host, port))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; whoever has connected by now is served."""
        self._stopping.set()
        # The loop accepts what waits at a listener, which the kernel would reset as it closes.
        for _ in range(2):
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        await asyncio.sleep(_ACCEPTED_S)
        await super().shutdown(sockets)


def _config(app: ASGIApp, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=DecliningProtocol,
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE_S,
        # The service's own logging stays. Access lines would contain uids, and are the proxy's job.
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        lifespan="on",
    )


def serve(app: ASGIApp, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    _Server(app, host, port).run()


@contextmanager
def serve_in_thread(app: ASGIApp, host: str, port: int) -> Iterator[int]:
    """Serve while the block is open. Yields the port; `port` 0 picks a free one.

    Raises `OSError` if the server cannot start, for example because the port is taken.
    """
    server = _Server(app, host, port)
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
