"""A gateway with a routing table of the test's own making, and the clients that call it."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from contract.deployments import Backend as ReadyReplica
from contract.deployments import DeploymentStatus, Route, RoutingTable
from contract.serving import ServingSpec
from grpc_gateway.options import GatewayOptions
from grpc_gateway.server import GatewayServer
from grpc_gateway.service import build_gateway
from tests.integration.grpc_backend import Backend

TOKEN = "a-service-token-of-the-tests"
UNREACHABLE = "http://127.0.0.1:9"
_Result = TypeVar("_Result")


def route(name: str, *backends: Backend | str, status: DeploymentStatus | None = None, **fields: Any) -> Route:
    """A deployment with these replicas; `fields` are of the route, as `owner` is, or of its serving description."""
    own = {key: fields.pop(key) for key in ("owner", "detail", "model_version", "users") if key in fields}
    addresses = [backend if isinstance(backend, str) else backend.address for backend in backends]
    return Route(
        human_readable_id=name,
        serving=ServingSpec(**({"port": 50051} | fields)),
        status=status or (DeploymentStatus.READY if addresses else DeploymentStatus.STARTING),
        backends=[ReadyReplica(uid=uid_of(address), address=address) for address in addresses],
        **({"model_version": 1} | own),
    )


def uid_of(address: str) -> str:
    """The uid of the replica at this address."""
    return address.encode().hex().ljust(64, "0")


@dataclass
class RunningGateway:
    """A gateway that runs in a thread."""

    port: int
    server: GatewayServer
    loop: asyncio.AbstractEventLoop
    channel: grpc.Channel
    inside: grpc.Channel
    """Where containers of deployments call."""
    _version: int = 0

    def give(self, *routes: Route, ended_keys: Sequence[str] = ()) -> None:
        """Make these the routing table, as if the private API had said so."""
        self._version += 1
        ordered = sorted(routes, key=lambda one: one.human_readable_id)
        table = RoutingTable(etag=f"table-{self._version}", routes=ordered, ended_keys=list(ended_keys))
        self.run(lambda: self.server.table.apply(table))

    def run(self, function: Callable[[], _Result]) -> _Result:
        """Call `function` on the gateway's event loop."""

        async def call() -> _Result:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(60)

    def unary(self, path: str) -> grpc.UnaryUnaryMultiCallable:
        """A method of the gateway, called with bytes."""
        return self.channel.unary_unary(path)

    def stream(self, path: str) -> grpc.StreamStreamMultiCallable:
        """A bidirectional method of the gateway, called with bytes."""
        return self.channel.stream_stream(path)


@contextmanager
def run_harness_gateway(private_url: str = UNREACHABLE, **options: Any) -> Iterator[RunningGateway]:
    """A gateway without a routing table, on a free port, while the block is open."""
    usual = {"private_url": private_url, "service_token": TOKEN, "name": "harness", "drain_s": 0.0, "replica_port": 0}
    made = GatewayOptions(**(usual | options))
    started: Future[tuple[int, GatewayServer, asyncio.AbstractEventLoop]] = Future()
    stopping = asyncio.Event()

    async def main() -> None:
        try:
            server = build_gateway(made)
            port = await server.start()
        except BaseException as error:
            started.set_exception(error)
            raise
        started.set_result((port, server, asyncio.get_running_loop()))
        await stopping.wait()
        await server.stop()

    thread = threading.Thread(target=asyncio.run, args=(main(),), name="harness-gateway", daemon=True)
    thread.start()
    port, server, loop = started.result(60)
    with (
        grpc.insecure_channel(f"127.0.0.1:{port}", options=CLIENT_OPTIONS) as channel,
        grpc.insecure_channel(f"127.0.0.1:{server.replica_port}", options=CLIENT_OPTIONS) as inside,
    ):
        yield RunningGateway(port, server, loop, channel, inside)
        loop.call_soon_threadsafe(stopping.set)
        thread.join(60)
        assert not thread.is_alive()


CLIENT_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Each test's gateway is another one, though ports may come again.
    ("grpc.use_local_subchannel_pool", 1),
)


def status_of(call: Callable[[], object]) -> Any:
    """The error that the call ends with."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"the call was answered with {answer!r}")


def trailers_of(call: Any) -> dict[str, str]:
    """Trailing metadata; of a name that stands twice, the last."""
    return dict(call.trailing_metadata() or ())
