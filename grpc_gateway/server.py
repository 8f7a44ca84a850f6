"""One gateway process: its server, from the first table to the last call."""

import asyncio
import logging

import grpc

from contract.gateway_client import GatewayClient
from grpc_gateway.background import Background
from grpc_gateway.door import Door
from grpc_gateway.options import GatewayOptions
from grpc_gateway.ports import listen
from grpc_gateway.refusals import shutting_down
from grpc_gateway.table import Table
from grpc_gateway.table_sync import TableSync

logger = logging.getLogger(__name__)

_CUT_S = 0.5
"""How long before the end of the drain the remaining calls are ended with a status."""
_MAX_STREAMS = 2**20


class GatewayServer:
    """Starts once and stops once. It belongs to one event loop."""

    def __init__(
        self, options: GatewayOptions, client: GatewayClient, table: Table, door: Door, table_sync: TableSync
    ) -> None:
        self._options = options
        self._client = client
        self.table = table
        self.door = door
        self._table_sync = table_sync
        self._servers: list[grpc.aio.Server] = []
        self.replica_port: int | None = None
        """Where it listens for containers of deployments, once it does."""
        self._background = Background()

    async def start(self) -> int:
        """Serve; returns the port. Raises `PortTaken`."""
        options = self._options
        port = self._listen(self.door, options.host, options.port)
        if options.replica_port is not None:
            self.replica_port = self._listen(self.door.for_replicas, options.replica_host, options.replica_port)
        for server in self._servers:
            await server.start()
        self._table_sync.start()
        self._background.start(self._end_calls_of_ended_keys(), "ending calls of ended keys")
        return port

    def _listen(self, handler: grpc.GenericRpcHandler, host: str, port: int) -> int:
        server = grpc.aio.server(handlers=[handler], options=_server_options(self._options))
        self._servers.append(server)
        return listen(server, host, port)

    async def _end_calls_of_ended_keys(self) -> None:
        while True:
            change = self.table.next_change()
            self.door.end_calls_of(self.table.ended_keys)
            await change.wait()

    async def stop(self) -> None:
        """Drain: announce it, take no new calls, let open ones end, cut the rest."""
        drain_s = self._options.drain_s
        if not self._servers:
            return
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + drain_s
        self.table.drain()
        logger.info("draining for at most %.0f s, %d calls open", drain_s, self.door.open_calls)
        await asyncio.sleep(min(self._options.notice_s, drain_s / 5))
        self.table.close()
        left_s = max(0.0, ends_at - loop.time())
        cut = loop.call_later(max(0.0, left_s - _CUT_S), self.door.end_all, shutting_down())
        await asyncio.gather(*(server.stop(left_s) for server in self._servers))
        cut.cancel()
        await self._background.cancel()
        await self._table_sync.stop()
        await self.table.abandon()
        await self._client.close()
        logger.info("drained")


def _server_options(options: GatewayOptions) -> list[tuple[str, int]]:
    return [
        # On by default: a second gateway would silently take half of the connections.
        ("grpc.so_reuseport", int(options.shares_port)),
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.max_send_message_length", options.max_message_bytes),
        ("grpc.max_concurrent_streams", _MAX_STREAMS),
        # Triton's clients ping as often as every 10 s, even without calls; the defaults would end the connection.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        # A client that vanished must not hold its streams for ever.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]
