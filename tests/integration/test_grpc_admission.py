"""How many calls are taken on: per replica, per deployment, and by the gateway as a whole."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from grpc_gateway.admission import Limits
from tests.integration.grpc_backend import Backend, run_backend
from tests.integration.grpc_harness import RunningGateway, route, run_harness_gateway, status_of, trailers_of
from tests.integration.typed_service import TYPED
from tests.waiting import START_S, wait_until

CODE = grpc.StatusCode
ECHO = "/user.Own/Echo"
HELD = "/user.Own/Held"
INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture
def backend() -> Iterator[Backend]:
    with run_backend(reflects=(TYPED,)) as backend:
        yield backend


@pytest.fixture
def gateway_of_two_streams(backend: Backend) -> Iterator[RunningGateway]:
    with run_harness_gateway(limits=Limits(max_streams=2)) as gateway:
        gateway.give(route("m", backend))
        yield gateway


def counts(gateway: RunningGateway) -> tuple[int, int]:
    """Calls in flight, and calls that wait."""
    load = gateway.run(lambda: gateway.server.table.deployments["m"].load(0))
    return load.in_flight, load.queued


def hold(gateway: RunningGateway, message: bytes = b"") -> Any:
    # Held until the test lets it go on: its deadline must not come first, however busy the machine is.
    return gateway.unary(HELD).future(message, timeout=3 * START_S)


def test_calls_beyond_what_a_replica_answers_at_once_wait_and_beyond_the_queue_are_refused(
    gateway: RunningGateway, backend: Backend
) -> None:
    gateway.give(route("m", backend, max_in_flight=2, max_queued=1))
    held = [hold(gateway, b"0"), hold(gateway, b"1")]
    wait_until(lambda: counts(gateway) == (2, 0), "two are in flight")
    held.append(hold(gateway, b"2"))
    wait_until(lambda: counts(gateway) == (2, 1), "one waits")
    refused = status_of(lambda: gateway.unary(ECHO)(b"", timeout=60))
    assert (refused.code(), refused.details()) == (
        CODE.RESOURCE_EXHAUSTED,
        "1 calls wait for 'm' already (max_queued). Try again later.",
    )
    assert "request_id" in trailers_of(refused)
    # Control calls are answered all the same.
    assert gateway.unary("/ray.serve.RayServeAPIService/Healthz")(b"", timeout=60)
    assert len(backend.seen) == 2
    backend.may_go_on.set()
    assert [call.result(60) for call in held] == [b"0", b"1", b"2"]
    wait_until(lambda: counts(gateway) == (0, 0), "all places are free")


def test_a_place_is_free_after_every_kind_of_end(gateway: RunningGateway, backend: Backend) -> None:
    gateway.give(route("m", backend, max_in_flight=1, max_queued=0))
    for _ in range(5):
        status_of(lambda: gateway.unary("/user.Own/Fail")(b"", timeout=60))
        status_of(lambda: gateway.unary(HELD)(b"", timeout=0.1))
        wait_until(lambda: counts(gateway) == (0, 0), "the place is free")
        call = hold(gateway)
        wait_until(lambda: counts(gateway) == (1, 0), "it is taken")
        call.cancel()
        wait_until(lambda: counts(gateway) == (0, 0), "the place is free")
        assert gateway.unary(ECHO)(b"x", timeout=60) == b"x"
        wait_until(lambda: counts(gateway) == (0, 0), "the place is free")


def test_who_waits_longest_is_served_first(gateway: RunningGateway, backend: Backend) -> None:
    gateway.give(route("m", backend, max_in_flight=1))
    first = hold(gateway)
    wait_until(lambda: counts(gateway) == (1, 0), "one is in flight")
    waiting = []
    for number in range(5):
        waiting.append(gateway.unary(ECHO).future(str(number).encode(), timeout=60))
        wait_until(lambda number=number: counts(gateway) == (1, number + 1), "another one waits")
    waiting[2].cancel()
    wait_until(lambda: counts(gateway) == (1, 4), "one gave up")
    backend.may_go_on.set()
    first.result(60)
    assert [waiting[number].result(60) for number in (0, 1, 3, 4)] == [b"0", b"1", b"3", b"4"]
    assert backend.received == [b"0", b"1", b"3", b"4"]


def test_streams_are_counted_apart_from_calls(gateway: RunningGateway, backend: Backend) -> None:
    gateway.give(route("m", backend, max_in_flight=1, max_queued=0, max_streams=2))
    # Which methods stream the replica says itself, once it is asked.
    gateway.unary(f"/{TYPED}/Echo")(b"", timeout=60)
    method_types = gateway.server.table.deployments["m"].method_types
    wait_until(
        lambda: gateway.run(lambda: method_types.is_stream(f"/{TYPED}/HeldStream")), "the method types are known"
    )
    streams = [gateway.stream(f"/{TYPED}/HeldStream")(iter([]), timeout=60) for _ in range(2)]
    assert [next(stream) for stream in streams] == [b"open"] * 2
    refused = status_of(lambda: next(gateway.stream(f"/{TYPED}/HeldStream")(iter([]), timeout=60)))
    assert (refused.code(), refused.details()) == (
        CODE.RESOURCE_EXHAUSTED,
        "Every replica of 'm' has 2 streams open already (max_streams). Try again later.",
    )
    # They take no place of unary calls.
    assert gateway.unary(f"/{TYPED}/Echo")(b"x", timeout=60) == b"x"
    backend.may_go_on.set()
    assert [list(stream) for stream in streams] == [[], []]


def test_a_stream_does_not_wait_behind_calls(gateway: RunningGateway, backend: Backend) -> None:
    gateway.give(route("m", backend))
    gateway.unary(f"/{TYPED}/Echo")(b"", timeout=60)
    method_types = gateway.server.table.deployments["m"].method_types
    wait_until(
        lambda: gateway.run(lambda: method_types.is_stream(f"/{TYPED}/HeldStream")), "the method types are known"
    )
    gateway.give(route("m", backend, max_in_flight=1))
    held = [hold(gateway) for _ in range(2)]
    wait_until(lambda: counts(gateway) == (1, 1), "one is in flight and one waits")
    stream = gateway.stream(f"/{TYPED}/HeldStream")(iter([]), timeout=60)
    assert next(stream) == b"open"
    backend.may_go_on.set()
    assert [call.result(60) for call in held] == [b"", b""]


def test_streams_that_the_gateway_answers_itself_are_limited_too(gateway_of_two_streams: RunningGateway) -> None:
    gateway = gateway_of_two_streams
    health = health_pb2_grpc.HealthStub(gateway.channel)
    asked = health_pb2.HealthCheckRequest()
    watches = [health.Watch(asked, timeout=60) for _ in range(2)]
    assert [next(watch).status for watch in watches] == [health_pb2.HealthCheckResponse.SERVING] * 2
    for path in (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        f"{INFER.rpartition('/')[0]}/ModelStreamInfer",
    ):
        refused = status_of(lambda path=path: next(gateway.stream(path)(iter([]), timeout=60)))
        assert (refused.code(), refused.details()) == (
            CODE.RESOURCE_EXHAUSTED,
            "The gateway has 2 streams open already (GRPC_MAX_STREAMS). Try again later.",
        )
    assert health.Check(asked, timeout=60).status == health_pb2.HealthCheckResponse.SERVING
    watches[0].cancel()
    wait_until(lambda: gateway.server.door.open_calls == 1, "the place is free")
    assert next(health.Watch(asked, timeout=60)).status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("limits", "variable"),
    [
        (Limits(max_in_flight=1), "GRPC_MAX_IN_FLIGHT"),
        (Limits(max_bytes_in_flight=1000), "GRPC_MAX_BYTES_IN_FLIGHT"),
    ],
)
def test_the_gateway_as_a_whole_has_limits(backend: Backend, limits: Limits, variable: str) -> None:
    with run_harness_gateway(limits=limits) as gateway:
        gateway.give(route("m", backend))
        # A unary call's message is held until it is answered.
        held = gateway.unary(INFER).future(bytes(700), metadata=(("held", "1"),), timeout=60)
        wait_until(lambda: backend.seen, "one is in flight")
        for call in (
            lambda: gateway.unary(INFER)(bytes(700), timeout=60),
            lambda: list(gateway.stream(ECHO)(iter([bytes(700)]), timeout=60)),
        ):
            refused = status_of(call)
            assert refused.code() is CODE.RESOURCE_EXHAUSTED
            assert variable in refused.details()
            assert "request_id" in trailers_of(refused)
        assert gateway.unary("/ray.serve.RayServeAPIService/Healthz")(b"", timeout=60)
        backend.may_go_on.set()
        held.result(60)
        wait_until(lambda: counts(gateway) == (0, 0), "all is free")
        # One alone may be larger than the budget.
        assert len(gateway.unary(ECHO)(bytes(5000), timeout=60)) == 5000


def test_the_gateway_as_a_whole_limits_streams(backend: Backend) -> None:
    with run_harness_gateway(limits=Limits(max_streams=1)) as gateway:
        gateway.give(route("m", backend))
        gateway.unary(f"/{TYPED}/Echo")(b"", timeout=60)
        method_types = gateway.server.table.deployments["m"].method_types
        wait_until(
            lambda: gateway.run(lambda: method_types.is_stream(f"/{TYPED}/HeldStream")), "the method types are known"
        )
        stream = gateway.stream(f"/{TYPED}/HeldStream")(iter([]), timeout=60)
        assert next(stream) == b"open"
        refused = status_of(lambda: next(gateway.stream(f"/{TYPED}/HeldStream")(iter([]), timeout=60)))
        assert refused.code() is CODE.RESOURCE_EXHAUSTED
        assert "GRPC_MAX_STREAMS" in refused.details()


def test_processes_share_the_limits(backend: Backend) -> None:
    with run_harness_gateway(limits=Limits(workers=4)) as gateway:
        gateway.give(route("m", backend, max_in_flight=8, max_queued=3))
        held = [hold(gateway) for _ in range(2)]
        wait_until(lambda: counts(gateway) == (2, 0), "a quarter of eight is in flight")
        held.append(hold(gateway))
        wait_until(lambda: counts(gateway) == (2, 1), "at least one may wait")
        assert status_of(lambda: gateway.unary(ECHO)(b"", timeout=60)).code() is CODE.RESOURCE_EXHAUSTED
        backend.may_go_on.set()
        for call in held:
            call.result(60)


def test_a_thousand_calls_on_one_connection_run_at_once(gateway: RunningGateway, backend: Backend) -> None:
    gateway.give(route("m", backend, max_in_flight=2000))
    held = [hold(gateway) for _ in range(1000)]
    wait_until(lambda: counts(gateway) == (1000, 0), "all are in flight", within_s=START_S)
    wait_until(lambda: len(backend.seen) == 1000, "all are at the replica", within_s=START_S)
    backend.may_go_on.set()
    assert [call.result(START_S) for call in held] == [b""] * 1000
