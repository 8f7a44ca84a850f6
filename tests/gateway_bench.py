"""A gateway of real parts on a real port: its table is put in by hand, keys are judged by a small private API."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

from contract.access import CALLER_KEY_HEADER
from contract.deployments import Backend, DeploymentStatus, Route, RoutingTable
from contract.errors import Unauthenticated
from contract.gateway_client import GatewayClient
from contract.serving import Serving
from grpc_gateway.door import Door
from grpc_gateway.feed import Demands
from grpc_gateway.handlers import LocalHandlers
from grpc_gateway.keys import Keys
from grpc_gateway.kserve_stream import KserveStreams
from grpc_gateway.lanes import Lanes, Limits
from grpc_gateway.redhare import Redhare
from grpc_gateway.reflection import Reflection
from grpc_gateway.relay import Relay
from grpc_gateway.routing import Router
from grpc_gateway.table import Table

SERVICE_TOKEN = "token-of-the-services"
KEY_ID, KEY_SECRET = "0123456789abcdef", "5" * 64
KEY = f"is_{KEY_ID}_{KEY_SECRET}"
URL = "stream.example.org:9010"


def route(model: str, *addresses: str, **serving: Any) -> Route:
    """A deployment with a replica at each address."""
    backends = [Backend(uid=f"{model}-{address}", address=address) for address in addresses]
    status = DeploymentStatus.READY if backends else DeploymentStatus.STARTING
    described = Serving(**{"port": 1, "start_timeout_s": 1, **serving})
    return Route(human_readable_id=model, model_version=1, serving=described, status=status, backends=backends)


class Gateway:
    """What a test may do with it."""

    def __init__(self, table: Table, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self._table = table
        self._loop = loop
        self._applied = 0
        self.address = f"127.0.0.1:{port}"
        self.channel = grpc.insecure_channel(self.address)

    def apply(self, *routes: Route) -> None:
        """Make these the deployments."""
        self._applied += 1
        table = RoutingTable(
            etag=str(self._applied), routes=sorted(routes, key=lambda each: each.human_readable_id)
        )
        self.run(lambda: self._table.apply(table))

    def run(self, step: Callable[[], Any]) -> None:
        """Run a function on the gateway's loop."""

        async def steps() -> None:
            step()

        asyncio.run_coroutine_threadsafe(steps(), self._loop).result(10)


@contextmanager
def running_gateway(
    *routes: Route,
    requires_key: bool = False,
    scopes: Sequence[str] = ("submit",),
    token_lifetime: timedelta = timedelta(hours=1),
) -> Iterator[Gateway]:
    """A gateway with these deployments; `KEY` is the one key there is."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    with _private_api(scopes) as url:

        async def start() -> tuple[Any, Table, GatewayClient, int]:
            client = GatewayClient(url, SERVICE_TOKEN)
            table = Table(Limits(), Demands(client).ask)
            router, relay, local = Router(table), Relay(Lanes(Limits())), LocalHandlers()
            keys = Keys(client, table, SERVICE_TOKEN, requires_key=requires_key)
            Redhare(table, relay, keys, SERVICE_TOKEN, url=URL, token_lifetime=token_lifetime).install(local)
            KserveStreams(router, relay).install(local)
            Reflection(table, router).install(local)
            server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
            server.add_generic_rpc_handlers((Door(router, local, relay, keys),))
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            return server, table, client, port

        async def stop() -> None:
            await server.stop(0)
            await asyncio.gather(*(deployment.abandon() for deployment in table.deployments.values()))
            await client.close()

        server, table, client, port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        gateway = Gateway(table, loop, port)
        try:
            gateway.apply(*routes)
            yield gateway
        finally:
            gateway.channel.close()
            asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()


@contextmanager
def _private_api(scopes: Sequence[str]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            body: dict[str, Any] = {}
            status = 200
            if self.path == "/internal/gateways/callers":
                body = {"owner": "alice", "scopes": list(scopes)}
                if self.headers[CALLER_KEY_HEADER] != KEY:
                    body, status = Unauthenticated("this key is not known here").to_body(), 401
            encoded = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
