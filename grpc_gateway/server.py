"""One gateway process: its server, from the first table to the last call."""

import asyncio
import logging
from dataclasses import dataclass, field

import grpc

from contract.gateway_client import GatewayClient
from grpc_gateway.door import Door
from grpc_gateway.feed import Feed
from grpc_gateway.lanes import Limits
from grpc_gateway.table import Table
from grpc_gateway.texts import shutting_down

logger = logging.getLogger(__name__)

_NOTICE_S = 5.0
"""How long, at most, health checks say that it stops while new calls are still served."""
_CUT_S = 0.5
"""So long before the end of draining the calls that are left are told."""
_MAX_MESSAGE_BYTES = 2**31 - 1
_MAX_STREAMS = 2**20


class PortTaken(Exception):
    """Somebody else listens there."""


@dataclass(frozen=True)
class GatewayOptions:
    """What one gateway process needs to know."""

    private_url: str
    service_token: str = field(repr=False)
    name: str
    """Of this process, unique among all gateways; no slash."""
    host: str = "127.0.0.1"
    port: int = 0
    """0 is a free one."""
    more_hosts: tuple[str, ...] = ()
    """Other addresses of this host to listen on, at the same port."""
    shares_port: bool = False
    """Whether other processes of the same gateway listen on it, too."""
    niceness: int = 0
    """How far this process stands back behind others of its container while the CPUs are busy, 0 to 19."""
    requires_key: bool = False
    limits: Limits = field(default_factory=Limits)
    drain_s: float = 25.0
    stream_url: str | None = None
    """`host:port` that redhare's auth answers."""
    token_lifetime_s: float = 3600.0
    """How long the tokens of redhare's auth open streams."""


class GatewayServer:
    """Starts once and stops once. It belongs to one event loop."""

    def __init__(self, options: GatewayOptions, client: GatewayClient, table: Table, door: Door, feed: Feed) -> None:
        self._options = options
        self._client = client
        self.table = table
        self.door = door
        self._feed = feed
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Serve; returns the port. Raises `PortTaken`."""
        self._server = grpc.aio.server(handlers=[self.door], options=_server_options(self._options.shares_port))
        port = _listen(self._server, self._options.host, self._options.port)
        for host in self._options.more_hosts:
            _listen(self._server, host, port)
        await self._server.start()
        self._feed.start()
        return port

    async def stop(self) -> None:
        """Drain: say so, take no new calls, let open ones end, cut what is left."""
        server, drain_s = self._server, self._options.drain_s
        if server is None:
            return
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + drain_s
        self.table.drain()
        logger.info("draining for at most %.0f s, %d calls open", drain_s, self.door.open_calls)
        await asyncio.sleep(min(_NOTICE_S, drain_s / 5))
        self.table.close()
        left_s = max(0.0, ends_at - loop.time())
        cut = loop.call_later(max(0.0, left_s - _CUT_S), self.door.end_all, shutting_down())
        await server.stop(left_s)
        cut.cancel()
        await self._feed.stop()
        await self.table.abandon()
        await self._client.close()
        logger.info("drained")


def _listen(server: grpc.aio.Server, host: str, port: int) -> int:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise PortTaken(f"{address} cannot be had: another process listens there, or it is not ours") from error


def _server_options(shares_port: bool) -> list[tuple[str, int]]:
    return [
        # On by default: a second gateway would silently take half of the connections.
        ("grpc.so_reuseport", int(shares_port)),
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_concurrent_streams", _MAX_STREAMS),
        # Triton's clients ping as often as every 10 s, also without calls; with the defaults that ends the connection.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        # A client that vanished must not hold its streams for ever.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]
