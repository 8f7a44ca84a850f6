"""The gRPC door of a standalone server: where it listens, and where the containers of deployments find it."""

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

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
    """The addresses of one door, all at the same port."""

    host: str
    port: int
    network_host: str | None
    """This host's address on the network of replicas; None if this host does not have it."""

    @property
    def address(self) -> str:
        """`host:port` for clients; for a wildcard address, the host's name."""
        return _join(socket.gethostname() if self.host in _EVERYWHERE else self.host, self.port)

    @property
    def address_for_replicas(self) -> str:
        """`host:port` for containers on the network of replicas."""
        return _join(self.network_host or self.host, self.port)


def plan_door(host: str, port: int, network_host: str | None) -> GrpcDoor:
    """Decide where to listen before anything does: replicas are given the address. A `port` of 0 picks a free one.

    Raises `OSError` when `host` is not an address of this host.
    """
    if network_host is not None and not _is_ours(network_host):
        logger.warning(
            "models cannot call one another: %s, where they look for this host, is not its own", network_host
        )
        network_host = None
    return GrpcDoor(host, port or _free_port(host), network_host)


@contextmanager
def open_door(door: GrpcDoor, *, private_url: str, service_token: str, name: str, requires_key: bool) -> Iterator[None]:
    """Serve while the block is open; leaving it gives calls a moment to end. Raises `OSError` if the port is taken.

    Containers of models cannot reach the loopback, so the door also listens at this host's address on their network.
    """
    more = None if door.host in (*_EVERYWHERE, door.network_host) else door.network_host
    options = GatewayOptions(
        private_url=private_url,
        service_token=service_token,
        name=name,
        host=door.host,
        port=door.port,
        more_hosts=(more,) if more else (),
        requires_key=requires_key,
        drain_s=_DRAIN_S,
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


def _free_port(host: str) -> int:
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
