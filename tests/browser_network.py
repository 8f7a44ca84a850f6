"""Starts a program in a network of its own, whose only way out leads to one server.

A browser drops whatever is under way when an interface of its network comes or goes, as one does with each container
that a test beside it starts. In a network of its own nothing comes and goes, and no other host can be reached.

    python browser_network.py PORT SOCKET PROGRAM [ARGUMENT]...

What the program sends to PORT of its loopback goes to the Unix socket SOCKET, where `serve` passes it on.
"""

import ctypes
import fcntl
import os
import signal
import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x1000_0000, 0x4000_0000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
PR_SET_PDEATHSIG = 1
_PIECE = 65536


@contextmanager
def serve(host: str, port: int, path: Path) -> Iterator[None]:
    """Pass on what comes to the Unix socket `path` to a server outside."""

    class Passing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((host, port)) as server:
                join(self.request, server)

    with socketserver.ThreadingUnixStreamServer(str(path), Passing) as listener:
        listener.daemon_threads = True
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield
        listener.shutdown()


def join(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes both ways until both have ended."""
    back = threading.Thread(target=_pass_on, args=(other, one), daemon=True)
    back.start()
    _pass_on(one, other)
    back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _leave_network() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    # A user other than root needs a user namespace for it.
    if libc.unshare(CLONE_NEWNET) != 0:
        uid, gid = os.geteuid(), os.getegid()
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            sys.exit(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def _forward(listener: socket.socket, path: str) -> None:
    """Until the program ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    def pass_on(client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(path)
            join(client, server)

    while True:
        client, _ = listener.accept()
        threading.Thread(target=pass_on, args=(client,), daemon=True).start()


def main() -> None:
    """Leave the network, and become the program."""
    port, path, *command = sys.argv[1:]
    _leave_network()
    listener = socket.create_server(("127.0.0.1", int(port)))
    if os.fork() == 0:
        _forward(listener, path)
    listener.close()
    os.execvp(command[0], command)  # noqa: S606 - the whole purpose


if __name__ == "__main__":
    main()
