"""How every service runs its ASGI app: in the main thread until a signal, or in a thread beside others."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

_SHUTDOWN_S = 5
"""How long open requests, long polls among them, may go on after the stop."""
_START_S = 30


def _config(app: ASGIApp, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        # Our own logging stands; access lines would carry uids and are the proxy's job.
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        lifespan="on",
    )


def serve(app: ASGIApp, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    uvicorn.Server(_config(app, host, port)).run()


@contextmanager
def serve_in_thread(app: ASGIApp, host: str, port: int) -> Iterator[int]:
    """Serve while the block is open; yields the port, which is a free one where `port` is 0.

    Raises `OSError` when the port cannot be had.
    """
    server = uvicorn.Server(_config(app, host, port))
    sockets = [server.config.bind_socket()]
    thread = threading.Thread(target=server.run, args=(sockets,), name=f"http-{port}", daemon=True)
    thread.start()
    try:
        ends_at = time.monotonic() + _START_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > ends_at:
                raise OSError(f"the HTTP server on {host}:{port} did not start")
            thread.join(0.01)
        yield sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(_SHUTDOWN_S + 5)
        for socket in sockets:
            socket.close()
