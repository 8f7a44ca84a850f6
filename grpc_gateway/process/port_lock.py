"""Keeps a port for one gateway: its own processes share it, and nobody else joins."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from grpc_gateway.ports import PortTaken


@contextmanager
def hold_port(host: str, port: int) -> Iterator[None]:
    """Keep a port for this gateway's processes while the block is open. Raises `PortTaken`.

    The kernel lets any process of the same user join a shared port and gives it part of the connections: a second
    gateway would not fail, it would answer some of the calls. So the port is probed as a process that does not share
    would, and an abstract socket name, whose scope is the port's own, is held while the gateway runs.
    """
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(f"\0inference-server-grpc-{port}")
        except OSError as error:
            raise PortTaken(f"a gateway already runs on port {port}; stop it first, or set GRPC_PORT") from error
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                # Lingering connections of an earlier process are no obstacle; a listener is.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            raise PortTaken(f"{host}:{port} cannot be had: {error.strerror}; set GRPC_PORT to a free port") from error
        yield
