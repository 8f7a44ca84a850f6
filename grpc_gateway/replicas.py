"""One replica as a gateway process calls it: its channel and what is open on it."""

import asyncio
import hashlib
from collections.abc import Collection, Sequence
from random import sample

import grpc

from contract.deployments import Backend
from grpc_gateway.lanes import Lane

CONNECT_S = 0.9
"""How long a call waits for the connection to a replica before it tries another one."""
_DOWN_S = 1.0
"""How long a replica that could not be reached goes last."""
_ANSWER_S = 5.0
"""How long a host may take to accept a connection, where it is asked whether it is still there."""
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A container that comes back must not look dead for two minutes.
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    # Otherwise channels to one address share a connection, and closing one does not close it.
    ("grpc.use_local_subchannel_pool", 1),
    # Long details and trailers of a replica arrive, and are shortened here.
    ("grpc.max_metadata_size", 1024**2),
    ("grpc.absolute_max_metadata_size", 1024**2),
    # A host that vanishes closes no connection. Servers with grpc's defaults tolerate a ping every 300 s.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_http_proxy", 0),
)


class Replica:
    """A channel and counters. It belongs to one event loop."""

    def __init__(self, backend: Backend) -> None:
        self.uid = backend.uid
        self.address = backend.address
        self.channel = grpc.aio.insecure_channel(backend.address, options=_OPTIONS)
        self.open = {Lane.INFER: 0, Lane.STREAM: 0}
        self.down_until = 0.0
        """On the event loop's clock."""
        self.is_gone = False
        """Whether its host was seen to be gone: the calls that were open on it were ended for that."""
        self._seed = backend.uid.encode()
        self._connecting: asyncio.Task[bool] | None = None
        # The first call should find a connection.
        self.channel.get_state(try_to_connect=True)

    @property
    def in_flight(self) -> int:
        """Calls and streams open on it."""
        return self.open[Lane.INFER] + self.open[Lane.STREAM]

    @property
    def is_connected(self) -> bool:
        """Whether a call can be sent right now. Where not, a connection is begun."""
        return self.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    async def connect(self) -> bool:
        """Wait for the connection, at most `CONNECT_S`; says whether it is there. Nothing of any call was sent then."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        # Shared, and not to be cancelled with one of the calls that wait for it.
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

    def rank(self, affinity: bytes) -> bytes:
        """Its place for calls with this affinity: the highest gets them, in every process (rendezvous hashing)."""
        return hashlib.blake2b(affinity, digest_size=8, key=self._seed[:64]).digest()

    async def is_there(self) -> bool:
        """Whether something still accepts connections at its address."""
        host, _, port = self.address.rpartition(":")
        try:
            async with asyncio.timeout(_ANSWER_S):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def give_up(self) -> None:
        """End the calls that are open on it: nobody is there to answer them."""
        self.is_gone = True
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls that are open on it are cancelled."""
        await self.channel.close()


def choose(
    replicas: Sequence[Replica], lane: Lane, most: int, *, affinity: str, avoid: Collection[Replica], now: float
) -> Replica | None:
    """The replica for a call, or None where each has `most` calls of this lane.

    With an affinity the same one as long as it has room; else the one with less in flight of two random ones.
    """
    if len(replicas) == 1 and not avoid:
        return replicas[0] if replicas[0].open[lane] < most else None
    free = [replica for replica in replicas if replica.open[lane] < most and replica not in avoid]
    # One that could not be reached a moment ago is better than none.
    free = [replica for replica in free if replica.down_until <= now] or free
    if not free:
        return None
    if affinity:
        encoded = affinity.encode()
        return max(free, key=lambda replica: replica.rank(encoded))
    # Which of two random ones is less loaded needs no view of all, and does not send every process to the same one.
    return min(sample(free, 2), key=lambda replica: replica.in_flight) if len(free) > 1 else free[0]
