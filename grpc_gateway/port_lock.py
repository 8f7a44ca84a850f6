"""One gateway per port: its processes share the port, and nobody else gets in between."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from grpc_gateway.server import PortTaken


@contextmanager
def hold_port(host: str, port: int) -> Iterator[None]:
    """Keep a port for this gateway's processes while the block is open. Raises `PortTaken`.

    The kernel lets anybody of the same user join a shared port, and then gives them part of the connections: a second
    gateway would not fail but answer some calls. So the port is looked at as somebody who does not share would, and
    a name in the kernel's own space, which is as wide as the port's, is held as long as the gateway runs.
    """
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(f"\0inference-server-grpc-{port}")
        except OSError as error:
            raise PortTaken(f"a gateway already runs on port {port}; stop it first, or set GRPC_PORT") from error
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                # Connections of an earlier process that linger are no obstacle; one that listens is.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            raise PortTaken(f"{host}:{port} cannot be had: {error.strerror}; set GRPC_PORT to a free port") from error
        yield
