"""The calls that the gateway answers itself: health, Ray's and KServe's questions after servers and models."""

import queue
import threading
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contract.deployments import DeploymentStatus
from kit.protobuf import fields, text_field, varint_field
from tests.integration.grpc_backend import Backend, run_backend
from tests.integration.grpc_harness import RunningGateway, route, status_of, trailers_of
from tests.waiting import wait_until

CODE = grpc.StatusCode
KSERVE = "/inference.GRPCInferenceService"
RAY = "/ray.serve.RayServeAPIService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
HEALTH = {"categories": ["health"], "key": "h", "value": "v"}


@pytest.fixture
def backend() -> Iterator[Backend]:
    with run_backend() as backend:
        yield backend


def check(gateway: RunningGateway, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(gateway.channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60).status


def test_health_is_that_of_the_gateway_and_of_each_deployment_by_its_names(
    gateway: RunningGateway, backend: Backend
) -> None:
    assert check(gateway) == NOT_SERVING
    gateway.give(
        route("ready", backend, application="app", model_names=["m1", "m2"], default_service="user.Own"),
        route("idle", status=DeploymentStatus.IDLE),
        route("starting", status=DeploymentStatus.STARTING),
        route("failing", status=DeploymentStatus.FAILING),
    )
    assert check(gateway) == SERVING
    assert {name: check(gateway, name) for name in ("ready", "app", "m1", "m2", "user.Own", "idle")} == dict.fromkeys(
        ("ready", "app", "m1", "m2", "user.Own", "idle"), SERVING
    )
    assert check(gateway, "starting") == check(gateway, "failing") == NOT_SERVING
    unknown = status_of(lambda: check(gateway, "nobody"))
    assert unknown.code() is CODE.NOT_FOUND
    assert "request_id" in trailers_of(unknown)


def test_a_watch_tells_every_change(gateway: RunningGateway, backend: Backend) -> None:
    stub = health_pb2_grpc.HealthStub(gateway.channel)
    told: queue.Queue[int] = queue.Queue()
    stream = stub.Watch(health_pb2.HealthCheckRequest(service="m"), timeout=60)

    def follow() -> None:
        try:
            for answer in stream:
                told.put(answer.status)
        except grpc.RpcError:
            pass

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    assert told.get(timeout=60) == NOT_SERVING
    gateway.give()
    assert told.get(timeout=60) == SERVICE_UNKNOWN
    gateway.give(route("m", status=DeploymentStatus.STARTING))
    assert told.get(timeout=60) == NOT_SERVING
    gateway.give(route("m", backend))
    assert told.get(timeout=60) == SERVING
    gateway.run(gateway.server.table.drain)
    assert told.get(timeout=60) == NOT_SERVING
    stream.cancel()
    thread.join(60)


def test_rays_own_calls(gateway: RunningGateway, backend: Backend) -> None:
    healthz, applications = gateway.unary(f"{RAY}/Healthz"), gateway.unary(f"{RAY}/ListApplications")

    def both_say(text: str) -> None:
        for call in (healthz, applications):
            error = status_of(lambda call=call: call(b"", timeout=60))
            assert (error.code(), error.details()) == (CODE.UNAVAILABLE, text)
            assert "request_id" in trailers_of(error)

    both_say("Route table is not populated yet.")
    gateway.give()
    both_say("Route table is not populated yet.")
    gateway.give(route("b", backend, application="App"), route("a", status=DeploymentStatus.IDLE))
    assert healthz(b"", timeout=60) == text_field(1, "success")
    assert list(fields(applications(b"", timeout=60))) == [(1, b"a"), (1, b"App")]
    gateway.run(gateway.server.table.drain)
    both_say("This node is being drained.")
    # Calls are served all the same.
    assert gateway.unary("/user.Own/Echo")(b"x", metadata=(("application", "App"),), timeout=60) == b"x"


def test_kserve_servers_and_models_are_asked_after(gateway: RunningGateway, backend: Backend) -> None:
    def is_true(method: str, message: bytes = b"") -> bool:
        return gateway.unary(f"{KSERVE}/{method}")(message, timeout=60) == varint_field(1, True)

    assert is_true("ServerLive")
    assert not is_true("ServerReady")
    early = status_of(lambda: is_true("ModelReady", text_field(1, "m")))
    assert (early.code(), early.details()) == (CODE.UNAVAILABLE, "Route table is not populated yet.")
    gateway.give(
        route("m", backend, protocol="kserve", model_names=["m1", "m2"]),
        route("cold", status=DeploymentStatus.IDLE, protocol="kserve"),
        route("broken", status=DeploymentStatus.FAILING, protocol="kserve", detail="exit code 1"),
        route("other", backend),
    )
    assert is_true("ServerReady")
    assert [is_true("ModelReady", text_field(1, name)) for name in ("m1", "m2", "cold", "broken", "unknown")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    metadata = dict(fields(gateway.unary(f"{KSERVE}/ServerMetadata")(b"", timeout=60)))
    assert metadata[1] == b"inference-server"

    def index(message: bytes) -> list[dict[int, object]]:
        return [dict(fields(entry)) for _, entry in fields(gateway.unary(f"{KSERVE}/RepositoryIndex")(message))]

    everything = index(b"")
    assert [(one[1], one[3]) for one in everything] == [
        (b"broken", b"UNAVAILABLE"),
        (b"cold", b"READY"),
        (b"m1", b"READY"),
        (b"m2", b"READY"),
    ]
    assert everything[0][4] == b"exit code 1"
    assert [one[1] for one in index(varint_field(2, True))] == [b"cold", b"m1", b"m2"]
    assert backend.seen == []
    gateway.run(gateway.server.table.drain)
    assert is_true("ServerLive")
    assert not is_true("ServerReady")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/grpc.health.v1.Health/Check", "grpc.health.v1.HealthCheckRequest"),
        (f"{KSERVE}/ModelReady", "inference.ModelReadyRequest"),
        (f"{KSERVE}/RepositoryIndex", "inference.RepositoryIndexRequest"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused(gateway: RunningGateway, path: str, kind: str) -> None:
    gateway.give()
    refused = status_of(lambda: gateway.unary(path)(b"\xff\xff", timeout=60))
    assert (refused.code(), refused.details()) == (CODE.INVALID_ARGUMENT, f"The message is no {kind}.")


def test_a_version_is_asked_of_a_replica(
    gateway: RunningGateway, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.give(
        route("m", backend, protocol="kserve", max_in_flight=1),
        route("cold", status=DeploymentStatus.IDLE, protocol="kserve"),
    )
    versioned = text_field(1, "m") + text_field(2, "9")
    call = gateway.unary(f"{KSERVE}/ModelReady")
    # This replica answers with the question: what it says is what is told.
    assert call(versioned, timeout=60) == versioned
    assert backend.paths() == [f"{KSERVE}/ModelReady"]
    # One that is busy is asked all the same, and one that says nothing is believed to be ready.
    busy = gateway.unary(f"{KSERVE}/ModelInfer").future(text_field(1, "m"), metadata=(("held", "1"),), timeout=60)
    wait_until(lambda: len(backend.seen) == 2, "the replica is called")
    assert call(versioned, timeout=60) == versioned
    monkeypatch.setattr("grpc_gateway.protocols.kserve.ASK_S", 0.1)
    assert call(versioned, metadata=(("held", "1"),), timeout=60) == varint_field(1, True)
    backend.may_go_on.set()
    assert busy.result() == text_field(1, "m")
    backend.seen.clear()
    assert call(text_field(1, "cold") + text_field(2, "9"), timeout=60) == varint_field(1, True)
    assert not backend.seen


def test_behind_a_prefix_the_questions_are_about_one_deployment(gateway: RunningGateway, backend: Backend) -> None:
    gateway.give(
        route("a", backend, prefix="a", protocol="kserve"),
        route("b", prefix="b", protocol="kserve", status=DeploymentStatus.STARTING),
    )
    ready = varint_field(1, True)
    assert gateway.unary("/a/ServerReady")(b"", timeout=60) == ready
    assert gateway.unary("/b/ServerReady")(b"", timeout=60) == b""
    index = gateway.unary(f"/b{KSERVE}/RepositoryIndex")(b"", timeout=60)
    assert [dict(fields(entry))[1] for _, entry in fields(index)] == [b"b"]
    names = gateway.unary(f"/b{RAY}/ListApplications")(b"", timeout=60)
    assert list(fields(names)) == [(1, b"b")]
    health = gateway.unary("/b/grpc.health.v1.Health/Check")(b"", timeout=60)
    assert health == varint_field(1, NOT_SERVING)


def test_every_application_inside_a_container_is_listed_and_healthy(gateway: RunningGateway, backend: Backend) -> None:
    gateway.give(
        route("own", backend), route("ray", backend, protocol="ray", applications=["app1", "app2"], prefix="r")
    )
    names = gateway.unary(f"{RAY}/ListApplications")(b"", timeout=60)
    assert [name for _, name in fields(names)] == [b"own", b"app1", b"app2"]
    names = gateway.unary(f"/r{RAY}/ListApplications")(b"", timeout=60)
    assert [name for _, name in fields(names)] == [b"app1", b"app2"]
    assert [check(gateway, name) for name in ("app1", "app2", "ray")] == [SERVING] * 3


def test_behind_a_prefix_the_index_has_the_names_that_lead_nowhere_else(
    gateway: RunningGateway, backend: Backend
) -> None:
    for_model = {"protocol": "kserve", "unrouted_model_names": ["model"]}
    gateway.give(route("a", backend, prefix="a", **for_model), route("b", backend, prefix="b", **for_model))

    def index(path: str) -> list[object]:
        answer = gateway.unary(f"{path}{KSERVE}/RepositoryIndex")(b"", timeout=60)
        return [dict(fields(entry))[1] for _, entry in fields(answer)]

    assert (index(""), index("/a")) == ([], [b"model"])
    assert check(gateway, "model") == SERVING


def test_restricted_keys_close_these_calls_too(gateway: RunningGateway, backend: Backend) -> None:
    gateway.give(route("m", backend, protocol="kserve", restricted_keys=[HEALTH]))
    for method, message in (("ServerReady", b""), ("ServerLive", b""), ("ModelReady", text_field(1, "m"))):
        call = gateway.unary(f"{KSERVE}/{method}")
        error = status_of(lambda call=call, message=message: call(message, timeout=60))
        assert (error.code(), error.details()) == (
            CODE.UNAVAILABLE,
            "This protocol is restricted, expecting header 'triton-grpc-protocol-h'",
        )
        assert call(message, metadata=(("triton-grpc-protocol-h", "v"),), timeout=60) == varint_field(1, True)
