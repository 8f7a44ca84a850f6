"""One caller of the gateway leaves room for the others, and callers without a key leave some for those with one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contract.access import Scope
from grpc_gateway.admission import MOST_WITHOUT_KEY, Limits
from private_api.keys import create_key
from tests.databases import opened
from tests.integration.grpc_backend import Backend, run_backend
from tests.integration.grpc_harness import CLIENT_OPTIONS, RunningGateway, route, run_harness_gateway, status_of
from tests.running_api import RunningApi
from tests.waiting import START_S, wait_until

CODE = grpc.StatusCode
HELD = "/user.Own/Held"
INFER = "/inference.GRPCInferenceService/ModelInfer"
ASKED = health_pb2.HealthCheckRequest()


@pytest.fixture
def backend() -> Iterator[Backend]:
    with run_backend() as backend:
        yield backend


@contextmanager
def another(gateway: RunningGateway) -> Iterator[grpc.Channel]:
    """A connection of its own."""
    with grpc.insecure_channel(f"127.0.0.1:{gateway.port}", options=CLIENT_OPTIONS) as channel:
        yield channel


def watch(channel: grpc.Channel, **options: Any) -> Any:
    """A watch on the gateway's health that has had its first answer."""
    stream = health_pb2_grpc.HealthStub(channel).Watch(ASKED, timeout=5 * START_S, **options)
    next(stream)
    return stream


def hold(channel: grpc.Channel) -> Any:
    return channel.unary_unary(HELD).future(b"", timeout=5 * START_S)


def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    error = status_of(call)
    return error.code(), error.details()


def test_one_connection_without_a_key_leaves_a_quarter_of_the_calls(backend: Backend) -> None:
    with run_harness_gateway(limits=Limits(max_in_flight=4)) as gateway, another(gateway) as other:
        gateway.give(route("m", backend))
        calls = [hold(gateway.channel) for _ in range(3)]
        wait_until(lambda: len(backend.seen) == 3, "three calls at the replica")
        assert refusal(hold(gateway.channel).result) == (
            CODE.RESOURCE_EXHAUSTED,
            "This caller has 3 calls open already, the most for one; the gateway takes 4 (GRPC_MAX_IN_FLIGHT). "
            "Try again later.",
        )
        calls.append(hold(other))
        wait_until(lambda: len(backend.seen) == 4, "the other one's at the replica")
        assert "The gateway has 4 calls open already" in refusal(hold(other).result)[1]
        backend.may_go_on.set()
        assert [call.result(60) for call in calls] == [b""] * 4
        assert hold(gateway.channel).result(60) == b""


def test_one_connection_without_a_key_leaves_bytes_to_others(backend: Backend) -> None:
    with run_harness_gateway(limits=Limits(max_bytes_in_flight=4000)) as gateway, another(gateway) as other:
        gateway.give(route("m", backend))

        def send(channel: grpc.Channel, size_bytes: int) -> Any:
            """A call whose message is held until it is answered."""
            options: Any = {"metadata": (("held", "1"),), "timeout": 5 * START_S}
            return channel.unary_unary(INFER).future(bytes(size_bytes), **options)

        calls = [send(gateway.channel, 2000)]
        wait_until(lambda: len(backend.seen) == 1, "the call at the replica")
        code, said = refusal(send(gateway.channel, 1500).result)
        assert (code, "of this caller" in said) == (CODE.RESOURCE_EXHAUSTED, True), said
        calls.append(send(other, 1500))
        wait_until(lambda: len(backend.seen) == 2, "the other one's at the replica")
        backend.may_go_on.set()
        assert [len(call.result(60)) for call in calls] == [2000, 1500]


def test_a_connection_has_a_hundred_watches_without_a_key() -> None:
    with run_harness_gateway() as gateway, another(gateway) as other:
        gateway.give()
        watches = [watch(gateway.channel) for _ in range(MOST_WITHOUT_KEY)]
        code, said = refusal(lambda: watch(gateway.channel))
        assert (code, said.startswith("This caller has 100 streams open already")) == (CODE.RESOURCE_EXHAUSTED, True)
        watches.append(watch(other))
        watches[0].cancel()
        wait_until(lambda: gateway.server.door.open_calls == MOST_WITHOUT_KEY, "the place is free")
        assert watch(gateway.channel)


def test_strangers_leave_streams_to_those_with_a_key(private_api: RunningApi) -> None:
    with opened(private_api.database_url) as database:
        key = create_key(database, owner="ada", scopes=[Scope.SUBMIT], lifetime=None)
    limits = Limits(max_streams=4)
    with run_harness_gateway(private_api.url, limits=limits, requires_key=True) as gateway, ExitStack() as stack:
        channels = [stack.enter_context(another(gateway)) for _ in range(4)]
        wait_until(lambda: gateway.server.table.is_populated, "the routing table")
        watches = [watch(channel) for channel in channels[:3]]
        assert "Callers without a key have 3 streams open already" in refusal(lambda: watch(channels[3]))[1]
        # A key that nobody asked for makes no difference.
        assert refusal(lambda: watch(channels[3], metadata=[("x-api-key", key)]))[0] is CODE.RESOURCE_EXHAUSTED
        reflect = gateway.stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        assert list(reflect(iter([]), timeout=60, metadata=[("x-api-key", key)])) == []
        assert len(watches) == 3


def test_behind_a_proxy_addresses_share_and_not_its_connections() -> None:
    with run_harness_gateway(limits=Limits(max_streams=8), behind_proxy=True) as gateway, another(gateway) as other:
        gateway.give()
        held = gateway.server.door
        watches = [watch(channel, metadata=[("x-real-ip", "192.0.2.1")]) for channel in (gateway.channel, other) * 2]
        admission = gateway.run(lambda: held._local._admission._held_places)
        assert [(holder, count) for (_, holder), count in admission.items()] == [("192.0.2.1", 4)]
        assert len(watches) == 4
