"""Puts a gateway process together and runs it: in a worker process, or in a thread beside other services."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.metadata import version

from contract.gateway_client import GatewayClient
from grpc_gateway.admission import Admission
from grpc_gateway.door import Door
from grpc_gateway.handlers import LocalHandlers
from grpc_gateway.keys import Keys
from grpc_gateway.options import GatewayOptions
from grpc_gateway.protocols.health import Health
from grpc_gateway.protocols.kserve import KServe
from grpc_gateway.protocols.kserve_stream import KServeStreams
from grpc_gateway.protocols.ray_serve import RayServe
from grpc_gateway.protocols.redhare import Redhare
from grpc_gateway.protocols.reflection import Reflection
from grpc_gateway.relay import Relay
from grpc_gateway.routing import Router
from grpc_gateway.server import GatewayServer
from grpc_gateway.table import Table
from grpc_gateway.table_sync import Demands, TableSync
from kit.threads import SupervisedThread

logger = logging.getLogger(__name__)

_STOP_MARGIN_S = 15


def build_gateway(options: GatewayOptions) -> GatewayServer:
    """A gateway that has not started yet. Call it inside the event loop that the gateway will belong to."""
    client = GatewayClient(options.private_url, options.service_token)
    table = Table(options.limits, Demands(client).ask)
    router = Router(table)
    admission = Admission(options.limits)
    relay = Relay(admission)
    keys = Keys(client, table, options.service_token, requires_key=options.requires_key)
    local = LocalHandlers(admission)
    Health(table).install(local)
    RayServe(table).install(local)
    KServe(table, router, version("inference-server")).install(local)
    Redhare(
        table,
        relay,
        keys,
        options.service_token,
        url=options.stream_url,
        token_lifetime_s=options.token_lifetime_s,
    ).install(local)
    KServeStreams(router, relay, admission).install(local)
    Reflection(table, router).install(local)
    table_sync = TableSync(client, table, options.name)
    door = Door(router, local, relay, keys, table_sync.refresh, behind_proxy=options.behind_proxy)
    return GatewayServer(options, client, table, door, table_sync)


async def serve_until(options: GatewayOptions, stopping: asyncio.Event, on_start: Callable[[int], None]) -> None:
    """Serve until the event is set, then drain. `on_start` gets the port. Raises `PortTaken`."""
    server = build_gateway(options)
    on_start(await server.start())
    await stopping.wait()
    await server.stop()


@contextmanager
def run_gateway(options: GatewayOptions) -> Iterator[int]:
    """Serve from a thread while the block is open; yields the port. Leaving it drains. Raises `PortTaken`."""
    started: Future[tuple[int, Callable[[], object]]] = Future()

    async def run() -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            loop.call_soon_threadsafe(stopping.set)

        await serve_until(options, stopping, lambda port: started.set_result((port, stop)))

    def target() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = SupervisedThread(
        "grpc-gateway",
        target,
        # Its port and its calls are gone by then.
        on_failure=lambda: logger.error("the gRPC door takes no calls any more: start the server again"),
    )
    thread.start()
    port, stop = started.result()
    try:
        yield port
    finally:
        # The loop of a thread that failed is closed, and takes no callback.
        if thread.is_alive:
            stop()
        thread.join(options.drain_s + _STOP_MARGIN_S)
