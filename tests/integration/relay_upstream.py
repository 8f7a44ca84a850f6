"""An upstream that records what a relay sends it, byte for byte, and can misbehave on purpose."""

import contextlib
import socket
from collections.abc import Iterator
from queue import Queue
from threading import Event, Semaphore, Thread


class Upstream:
    """Serves one connection after another: reads a head, sends `answer`, then reads until the other side ends."""

    def __init__(self, answer: bytes, *, closes: bool) -> None:
        """`closes`: end the connection right after the answer, whatever has not been read yet."""
        self.heads: Queue[bytes] = Queue()
        self.gone = Event()
        """Set when the relay has ended a connection that was still open here."""
        self.received = b""
        """The newest body, as it came on the wire."""
        self.closed = Semaphore(0)
        """Released whenever a connection was closed here."""
        self._answer = answer
        self._closes = closes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = Thread(target=self._run, name="relay-upstream", daemon=True)

    def head(self) -> bytes:
        """The head of the next request."""
        return self.heads.get(timeout=60)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    self._serve(connection)
                self.closed.release()

    def _serve(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data and (piece := connection.recv(65536)):
            data += piece
        head, _, self.received = data.partition(b"\r\n\r\n")
        self.heads.put(head)
        connection.sendall(self._answer)
        if self._closes:
            return
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                self.received += piece
        self.gone.set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        # A blocked accept() does not notice a plain close.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)


@contextlib.contextmanager
def upstream(answer: bytes = b"", *, closes: bool = False) -> Iterator[Upstream]:
    """An upstream that runs while the block is open."""
    server = Upstream(answer, closes=closes)
    server.start()
    try:
        yield server
    finally:
        server.stop()
