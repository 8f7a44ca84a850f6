"""Connections that hold a place at the front and never ask for anything whole."""

import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

NAME = "localhost"
"""The domain of the stacks of these tests."""
Address = tuple[str, int]
Opener = Callable[[Address], socket.socket]


def _context() -> ssl.SSLContext:
    # Without the system's authorities, whose reading takes longer than a handshake.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _hello() -> bytes:
    """What a TLS client says first."""
    said = ssl.MemoryBIO()
    try:
        _context().wrap_bio(ssl.MemoryBIO(), said, server_hostname=NAME).do_handshake()
    except ssl.SSLWantReadError:
        return said.read()
    raise AssertionError("a handshake is never over before the server answers")


def sent(data: bytes) -> Opener:
    """A connection on which this was sent in plain text."""

    def open_one(address: Address) -> socket.socket:
        connection = socket.create_connection(address, 60)
        connection.sendall(data)
        return connection

    return open_one


def encrypted(*requests: bytes) -> Opener:
    """A connection with TLS on which these were sent; all but the last one were answered."""

    def open_one(address: Address) -> socket.socket:
        connection = _context().wrap_socket(socket.create_connection(address, 60), server_hostname=NAME)
        for request in requests[:-1]:
            connection.sendall(request)
            assert connection.recv(65536).startswith(b"HTTP/1.1 ")
        connection.sendall(requests[-1])
        return connection

    return open_one


_HEAD = f"GET /docs HTTP/1.1\r\nHost: {NAME}\r\n".encode()
KINDS: dict[str, Opener] = {
    "silent": sent(b""),
    "half of a hello": sent(_hello()[:100]),
    "half of a handshake": sent(_hello()),
    "half of a head in plain text": sent(_HEAD),
    "silent behind TLS": encrypted(b""),
    "half of a head": encrypted(_HEAD),
    "half of the second head": encrypted(_HEAD.replace(b"/docs", b"/healthz") + b"\r\n", _HEAD),
}


class Crowd:
    """Open connections of one address, and when each was opened and closed."""

    def __init__(self, openers: Sequence[Opener], address: Address, stack: ExitStack) -> None:
        self.lifetimes: list[float] = []
        """Seconds, of those that the server closed."""
        self._opened: dict[int, tuple[socket.socket, float]] = {}
        self._poll = select.poll()
        for opener in openers:
            began = time.monotonic()
            connection = stack.enter_context(opener(address))
            connection.setblocking(False)
            self._opened[connection.fileno()] = connection, began
            self._poll.register(connection, select.POLLIN)

    def closed(self) -> int:
        """How many the server has closed by now."""
        for number, _ in self._poll.poll(0):
            connection, began = self._opened[number]
            if _has_ended(connection):
                self.lifetimes.append(time.monotonic() - began)
                self._poll.unregister(number)
        return len(self.lifetimes)


def _has_ended(connection: socket.socket) -> bool:
    try:
        while connection.recv(65536):
            pass
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    return True


@contextmanager
def crowd(openers: Sequence[Opener], address: Address) -> Iterator[Crowd]:
    """All of them opened one after the other, and closed with the block."""
    with ExitStack() as stack:
        yield Crowd(openers, address, stack)
