"""A replica as one gateway process calls it: its channel, and what is open on it."""

import asyncio

import grpc

from contract.deployments import Backend
from grpc_gateway.replica_choice import Candidate

CONNECT_S = 0.9
"""How long a call waits for the connection to a replica before it tries another one."""
_DOWN_S = 1.0
"""How long a replica that could not be reached is chosen last."""
_ANSWER_S = 5.0
"""How long a host may take to accept the connection of a probe."""
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A container that comes back must not look dead for two minutes.
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    # Otherwise channels to one address share a connection, and closing one does not close it.
    ("grpc.use_local_subchannel_pool", 1),
    # A replica's long details and trailers arrive in full; they are shortened here.
    ("grpc.max_metadata_size", 1024**2),
    ("grpc.absolute_max_metadata_size", 1024**2),
    # A host that vanishes closes no connection. Servers with grpc's defaults tolerate a ping every 300 s.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_http_proxy", 0),
)


class Replica(Candidate):
    """A candidate with the channel to it. It belongs to one event loop."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend.uid)
        self.address = backend.address
        self.channel = grpc.aio.insecure_channel(backend.address, options=_OPTIONS)
        self.is_gone = False
        """Whether its host was found gone; its open calls were ended for that reason."""
        self._connecting: asyncio.Task[bool] | None = None
        # The first call should find a connection.
        self.channel.get_state(try_to_connect=True)

    @property
    def is_connected(self) -> bool:
        """Whether a call can be sent now. If not, this begins to connect."""
        return self.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    async def connect(self) -> bool:
        """Wait for the connection, at most `CONNECT_S`; returns whether it is up. No part of any call is sent by it."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        # Shared by the calls that wait for it, and not to be cancelled with one of them.
        is_connected = await asyncio.shield(self._connecting)
        if not is_connected:
            self.down_until = asyncio.get_running_loop().time() + _DOWN_S
        return is_connected

    async def _connect(self) -> bool:
        try:
            async with asyncio.timeout(CONNECT_S):
                has_tried = False
                while True:
                    state = self.channel.get_state(try_to_connect=True)
                    if state is grpc.ChannelConnectivity.READY:
                        return True
                    if state is grpc.ChannelConnectivity.SHUTDOWN:
                        return False
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE and has_tried:
                        return False
                    has_tried = has_tried or state is grpc.ChannelConnectivity.CONNECTING
                    await self.channel.wait_for_state_change(state)
        except TimeoutError:
            return False
        finally:
            self._connecting = None

    async def is_there(self) -> bool:
        """Whether something at its address still accepts connections."""
        host, _, port = self.address.rpartition(":")
        try:
            async with asyncio.timeout(_ANSWER_S):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def give_up(self) -> None:
        """End the calls that are open on it, as nothing is left to answer them."""
        self.is_gone = True
        await self.close()

    async def close(self) -> None:
        """Close the connection; this cancels the calls that are open on it."""
        await self.channel.close()
