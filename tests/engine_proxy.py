"""A door to the machine's Docker Engine that holds back some calls, as an Engine that hangs would."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.engine_client import SOCKET


@dataclass
class EngineProxy:
    """Passes everything on until it is told to hold calls; what it held is never passed on."""

    url: str
    held: list[str] = field(default_factory=list)
    """The request lines of the calls that were held."""
    _pattern: re.Pattern[bytes] | None = None
    _released: threading.Event = field(default_factory=threading.Event)

    def hold(self, pattern: bytes) -> None:
        """From now on leave calls unanswered whose request line matches."""
        self._released.clear()
        self._pattern = re.compile(pattern)

    def release(self) -> None:
        """Answer every new call again; the connections of those that were held are closed."""
        self._pattern = None
        self._released.set()

    def serve(self, client: socket.socket) -> None:
        """One connection, until either side closes it."""
        with client, socket.socket(socket.AF_UNIX) as engine:
            engine.connect(SOCKET)
            threading.Thread(target=_pump, args=(engine, client), daemon=True).start()
            with suppress(OSError):
                while piece := client.recv(65536):
                    if self._pattern is not None and self._pattern.match(piece):
                        self.held.append(piece.partition(b"\r\n")[0].decode())
                        self._released.wait()
                        return
                    engine.sendall(piece)
            with suppress(OSError):
                engine.shutdown(socket.SHUT_RDWR)


@contextmanager
def engine_proxy() -> Iterator[EngineProxy]:
    """Listen on a free port of the loopback while the block is open."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = EngineProxy(f"tcp://127.0.0.1:{server.getsockname()[1]}")

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    threading.Thread(target=proxy.serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.release()
            # Ends the accept.
            server.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_RDWR)
