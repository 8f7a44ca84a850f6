"""The gRPC door of a standalone server: where it listens, and where the containers of deployments find it."""

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from grpc_gateway.options import GatewayOptions
from grpc_gateway.ports import PortTaken
from grpc_gateway.service import run_gateway

logger = logging.getLogger(__name__)

DEFAULT_PORT = 9000
"""Where `infer call` looks next to an `http://` server."""
_DRAIN_S = 5.0
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


@dataclass(frozen=True)
class GrpcDoor:
    """The addresses of one door."""

    host: str
    port: int
    replica_host: str | None
    """This host's address on the network of replicas, where it listens for them; None if this host does not have it."""
    replica_port: int = 0

    @property
    def address(self) -> str:
        """`host:port` for clients; for a wildcard address, the host's name."""
        return _join(socket.gethostname() if self.host in _EVERYWHERE else self.host, self.port)

    @property
    def address_for_replicas(self) -> str:
        """`host:port` for containers on the network of replicas; empty if they cannot call."""
        return _join(self.replica_host, self.replica_port) if self.replica_host else ""


def plan_door(host: str, port: int, network_host: str | None, port_file: Path) -> GrpcDoor:
    """Decide where to listen before anything does: replicas are given the address. A `port` of 0 picks a free one.

    The port for replicas, which outlive this process, is kept in `port_file` as long as it can be had.
    Raises `OSError` when `host` is not an address of this host.
    """
    if network_host is not None and not _is_ours(network_host):
        logger.warning(
            "models cannot call one another: %s, where they look for this host, is not its own", network_host
        )
        network_host = None
    replica_port = _kept_port(network_host, port_file) if network_host else 0
    return GrpcDoor(host, port or _free_port(host), network_host, replica_port)


@contextmanager
def open_door(door: GrpcDoor, *, private_url: str, service_token: str, name: str, requires_key: bool) -> Iterator[None]:
    """Serve while the block is open; leaving it gives calls a moment to end. Raises `OSError` if the port is taken.

    Containers of models cannot reach the loopback: for them it listens at this host's address on their network.
    """
    options = GatewayOptions(
        private_url=private_url,
        service_token=service_token,
        name=name,
        host=door.host,
        port=door.port,
        replica_host=door.replica_host or "",
        replica_port=door.replica_port if door.replica_host else None,
        requires_key=requires_key,
        drain_s=_DRAIN_S,
        # There is one door, so nobody could take his calls elsewhere.
        notice_s=0,
        stream_url=door.address,
    )
    with ExitStack() as stack:
        try:
            stack.enter_context(run_gateway(options))
        except PortTaken as error:
            raise OSError(f"the gRPC door: {error}; --grpc-port takes another port, --no-grpc does without") from error
        yield


def _is_ours(host: str) -> bool:
    try:
        with socket.socket(_family(host)) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _kept_port(host: str, file: Path) -> int:
    try:
        return _free_port(host, int(file.read_text()))
    except (OSError, ValueError, OverflowError):
        port = _free_port(host)
        file.write_text(f"{port}\n")
        return port


def _free_port(host: str, port: int = 0) -> int:
    """This port, or any that is free. Raises `OSError` if it is not."""
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
