"""How readiness is asked for and tasks are handed over, against real gRPC servers that answer in bytes."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager

import grpc
import pytest

from contract.serving import ServingSpec, WireProtocol
from job_consumer.replicas.calls import CallFailed, CallFault, TaskCall, TaskReply, why_not_ready

Answer = Callable[[bytes, grpc.ServicerContext], bytes]
HEALTH = "/grpc.health.v1.Health/Check"
READY = "/inference.GRPCInferenceService/ServerReady"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
APPLICATIONS = "/ray.serve.RayServeAPIService/ListApplications"
RUN = "/inferenceserver.Tasks/Run"


class Handlers(grpc.GenericRpcHandler):
    def __init__(self, methods: dict[str, Answer]) -> None:
        self._methods = methods

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        answer = self._methods.get(details.method)
        return None if answer is None else grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def serving(**methods: Answer | bytes) -> Iterator[str]:
    """The address of a server with these methods, named by the constants above; bytes are a fixed answer."""
    paths = {"health": HEALTH, "ready": READY, "status": STATUS, "run": RUN, "applications": APPLICATIONS}
    server = grpc.server(
        futures.ThreadPoolExecutor(4), handlers=[Handlers({paths[name]: fixed(m) for name, m in methods.items()})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def fixed(answer: Answer | bytes) -> Answer:
    return answer if callable(answer) else lambda _request, _context: answer


def probe(address: str, protocol: str = "grpc", *models: str, **options: str) -> str | None:
    description = ServingSpec.model_validate({"port": 1, "protocol": protocol, **options})
    return why_not_ready(address, description, list(models), 2)


@pytest.mark.parametrize("protocol", [WireProtocol.GRPC, WireProtocol.REDHARE])
def test_health_decides_where_it_is_served(protocol: WireProtocol) -> None:
    with serving(health=b"\x08\x01") as address:
        assert probe(address, protocol) is None
    for answer in (b"\x08\x02", b""):
        with serving(health=answer) as address:
            assert probe(address, protocol) == f"grpc.health.v1 answers with status {2 if answer else 0}"
    with serving(ready=b"\x08\x01") as address:
        assert probe(address, protocol) is None


def test_health_is_asked_for_the_whole_server() -> None:
    asked: list[bytes] = []

    def answer(request: bytes, _context: grpc.ServicerContext) -> bytes:
        asked.append(request)
        return b"\x08\x01"

    with serving(health=answer) as address:
        assert probe(address) is None
    assert asked == [b""]


def test_a_server_that_fails_or_is_not_there_is_not_ready() -> None:
    def fail(_request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.UNAVAILABLE, "still loading")
        raise AssertionError

    with serving(health=fail) as address:
        assert probe(address) == "UNAVAILABLE: still loading"
    assert (probe("127.0.0.1:1") or "").startswith("UNAVAILABLE: ")


def test_kserve_says_server_ready() -> None:
    for answer, expected in ((b"\x08\x01", None), (b"\x08\x00", "ServerReady answers false"), (b"", ...)):
        with serving(ready=answer) as address:
            assert probe(address, "kserve") == ("ServerReady answers false" if expected is ... else expected)
    with serving(health=b"\x08\x01") as address:
        assert (probe(address, "kserve") or "").startswith("UNIMPLEMENTED")


def test_tensorflow_has_an_available_version_of_each_model() -> None:
    def status(request: bytes, context: grpc.ServicerContext) -> bytes:
        # ModelSpec{name} within the request; states LOADING (20) and AVAILABLE (30).
        if request == b"\x0a\x05\x0a\x03one":
            return b"\x0a\x04\x08\x01\x10\x14\x0a\x04\x08\x02\x10\x1e"
        if request == b"\x0a\x05\x0a\x03two":
            return b"\x0a\x04\x08\x01\x10\x14"
        context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model three")
        raise AssertionError

    with serving(status=status) as address:
        assert probe(address, "tensorflow", "one") is None
        assert probe(address, "tensorflow", "one", "two") == (
            "no version of the model two is available; GetModelStatus answers with the states [20]"
        )
        # As a stock container answers that has its model under another name.
        assert probe(address, "tensorflow", "three") == (
            "NOT_FOUND: Could not find any versions of model three. If the container calls its model otherwise, name "
            "that in model_names or unrouted_model_names"
        )


@pytest.mark.parametrize(
    ("listed", "wanted", "says"),
    [
        (b"\x0a\x04app1\x0a\x04app2", ["app2", "app1"], None),
        (b"\x0a\x04app1", [], None),
        (b"\x0a\x04app1", ["app1", "app2", "app3"], "ListApplications names app1; missing: app2, app3"),
        # The proxy is up, and routes nothing yet.
        (b"", ["app1"], "ListApplications names none; missing: app1"),
        (b"", [], "ListApplications names none; missing: any"),
    ],
)
def test_ray_serve_lists_its_applications(listed: bytes, wanted: list[str], says: str | None) -> None:
    with serving(applications=listed) as address:
        description = ServingSpec(port=1, protocol=WireProtocol.RAY, applications=wanted)
        assert why_not_ready(address, description, [], 2) == says


def test_ray_serve_without_its_own_service_or_before_it_routes_is_not_ready() -> None:
    def refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.UNAVAILABLE, "Route table is not populated yet.")
        raise AssertionError

    with serving(applications=refuse) as address:
        assert probe(address, "ray") == "UNAVAILABLE: Route table is not populated yet."
    # What is only half up answers UNIMPLEMENTED, which `grpc` takes for ready.
    with serving(run=b"") as address:
        assert probe(address) is None
        assert (probe(address, "ray") or "").startswith("UNIMPLEMENTED")


def test_tcp_asks_for_no_more_than_a_connection() -> None:
    with serving(health=b"\x08\x02") as address:
        assert probe(address, readiness="tcp") is None
    assert "nothing listens at 127.0.0.1:1" in (probe("127.0.0.1:1", readiness="tcp") or "")


@pytest.mark.parametrize("answer", [b"\x08", b"\x0a\x05a", b"\x0f", b"\x08" + b"\xff" * 11])
def test_an_answer_that_is_no_message_is_not_ready(answer: bytes) -> None:
    with serving(health=answer) as address:
        assert (probe(address) or "").startswith("its answer cannot be read: ")


@contextmanager
def called(address: str, time_limit_s: float = 30) -> Iterator[TaskCall]:
    with TaskCall(address, "ab", "/tasks/input/ab", "/tasks/output/ab", time_limit_s=time_limit_s) as call:
        yield call


def test_a_task_is_handed_over_and_its_reply_read() -> None:
    asked: list[bytes] = []

    def run(request: bytes, _context: grpc.ServicerContext) -> bytes:
        asked.append(request)
        return b"\x08\x03\x12\x04nope\x1a\x00\x25abcd"

    with serving(run=run) as address:
        with called(address) as call:
            assert call.wait(60) == TaskReply(3, "nope")
        with TaskCall(address, "ab", "/in", "/out", "/progress/ab", time_limit_s=30) as call:
            assert call.wait(60) == TaskReply(3, "nope")
    assert asked == [
        b"\x0a\x02ab\x12\x0f/tasks/input/ab\x1a\x10/tasks/output/ab",
        b"\x0a\x02ab\x12\x03/in\x1a\x04/out\x22\x0c/progress/ab",
    ]


def test_an_empty_reply_is_success_and_negative_exit_codes_are_read() -> None:
    for reply, expected in ((b"", 0), (b"\x08" + b"\xff" * 9 + b"\x01", -1)):
        with serving(run=reply) as address, called(address) as call:
            assert call.wait(60) == TaskReply(expected, "")


def test_a_reply_is_waited_for_in_slices_and_leaving_cancels_the_call() -> None:
    started, cancelled = threading.Event(), threading.Event()

    def run(_request: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(cancelled.set)
        started.set()
        cancelled.wait(60)
        return b""

    with serving(run=run) as address:
        with called(address) as call:
            assert started.wait(60)
            assert call.wait(0.01) is None
        assert cancelled.wait(60)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (grpc.StatusCode.INTERNAL, CallFault.REFUSED),
        (grpc.StatusCode.UNAVAILABLE, CallFault.UNREACHABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, CallFault.TIME_LIMIT),
    ],
)
def test_a_failed_call_says_whose_fault_it_is(code: grpc.StatusCode, fault: CallFault) -> None:
    def run(_request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "no such organ")
        raise AssertionError

    with serving(run=run) as address, called(address) as call:
        with pytest.raises(CallFailed, match=f"{code.name}: no such organ") as caught:
            call.wait(60)
        assert caught.value.fault is fault


def test_a_server_that_serves_no_tasks_or_is_gone_is_told() -> None:
    with ExitStack() as stack:
        address = stack.enter_context(serving(health=b""))
        with called(address) as call, pytest.raises(CallFailed) as caught:
            call.wait(60)
        assert caught.value.fault is CallFault.REFUSED
    with called(address) as call, pytest.raises(CallFailed) as caught:
        call.wait(60)
    assert caught.value.fault is CallFault.UNREACHABLE


def test_the_limit_of_a_call_is_a_time_limit() -> None:
    release = threading.Event()

    def run(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        release.wait(60)
        return b""

    with serving(run=run) as address:
        with called(address, time_limit_s=0.2) as call, pytest.raises(CallFailed) as caught:
            call.wait(60)
        assert caught.value.fault is CallFault.TIME_LIMIT
        release.set()
