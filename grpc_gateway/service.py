"""Puts a gateway process together, and runs it: in a worker of its own, or in a thread beside other services."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.metadata import version

from contract.gateway_client import GatewayClient
from grpc_gateway.door import Door
from grpc_gateway.feed import Demands, Feed
from grpc_gateway.handlers import LocalHandlers
from grpc_gateway.health import Health
from grpc_gateway.keys import Keys
from grpc_gateway.kserve import KServe
from grpc_gateway.kserve_stream import KServeStreams
from grpc_gateway.lanes import Lanes
from grpc_gateway.ray_serve import RayServe
from grpc_gateway.redhare import Redhare
from grpc_gateway.reflection import Reflection
from grpc_gateway.relay import Relay
from grpc_gateway.routing import Router
from grpc_gateway.server import GatewayOptions, GatewayServer
from grpc_gateway.table import Table

_STOP_MARGIN_S = 15


def build_gateway(options: GatewayOptions) -> GatewayServer:
    """A gateway process that is not started yet. From inside the event loop that it will belong to."""
    client = GatewayClient(options.private_url, options.service_token)
    table = Table(options.limits, Demands(client).ask)
    router = Router(table)
    lanes = Lanes(options.limits)
    relay = Relay(lanes)
    keys = Keys(client, table, options.service_token, requires_key=options.requires_key)
    local = LocalHandlers(lanes)
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
    KServeStreams(router, relay, lanes).install(local)
    Reflection(table, router).install(local)
    feed = Feed(client, table, options.name)
    return GatewayServer(options, client, table, Door(router, local, relay, keys, feed.refresh), feed)


async def serve_until(options: GatewayOptions, stopping: asyncio.Event, on_start: Callable[[int], None]) -> None:
    """Serve until the event is set, then drain. `on_start` is told the port. Raises `PortTaken`."""
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

    thread = threading.Thread(target=target, name="grpc-gateway", daemon=True)
    thread.start()
    port, stop = started.result()
    try:
        yield port
    finally:
        stop()
        thread.join(options.drain_s + _STOP_MARGIN_S)
