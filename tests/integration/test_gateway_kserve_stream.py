"""`ModelStreamInfer` through the gateway: one model as a plain relay, several on one stream, and what goes wrong."""

import queue
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from tests.integration.contract_harness import run_contract_gateway
from tests.integration.grpc_harness import RunningGateway, route
from tests.kserve_replica import add_kserve, kserve_servicer, kserve_stubs
from tests.labeler import Replica, running_replica

SOON_S = 60
"""Far longer than an answer takes, far shorter than for ever."""
STUBS: Any = kserve_stubs()


def request(model: str, request_id: str = "", content: bytes = b"") -> Any:
    return STUBS.messages.ModelInferRequest(model_name=model, id=request_id, raw_input_contents=[content])


class OpenStream:
    """A stream whose sending side stays open until `end`."""

    def __init__(self, gateway: RunningGateway, *requests: Any, prefix: str = "", **metadata: str) -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        for each in requests:
            self._requests.put(each)
        start = gateway.channel.stream_stream(
            f"{prefix}/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=STUBS.messages.ModelStreamInferResponse.FromString,
        )
        sent = [
            (name.replace("_", "-") if name.startswith("triton_grpc_p") else name, metadata[name]) for name in metadata
        ]
        self.call: Any = start(iter(self._requests.get, None), timeout=SOON_S, metadata=sent)

    def send(self, *requests: Any) -> None:
        for each in requests:
            self._requests.put(each)

    def receive(self) -> Any:
        return next(self.call)

    def end(self) -> None:
        self._requests.put(None)

    def refusal(self) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError):
            next(self.call)
        self.end()
        return self.call.code().name, self.call.details()


@pytest.fixture
def servicers() -> dict[str, Any]:
    return {"one": kserve_servicer(), "two": kserve_servicer()}


@pytest.fixture
def replicas(servicers: dict[str, Any]) -> Iterator[dict[str, Replica]]:
    with (
        running_replica(lambda server: add_kserve(server, servicers["one"])) as one,
        running_replica(lambda server: add_kserve(server, servicers["two"])) as two,
    ):
        yield {"one": one, "two": two}


@pytest.fixture
def gateway(replicas: dict[str, Replica]) -> Iterator[RunningGateway]:
    one = route("one", replicas["one"].address, protocol="kserve", prefix="first")
    two = route("two", replicas["two"].address, protocol="kserve", model_names=["two", "zwei"])
    with run_contract_gateway(one, two) as gateway:
        yield gateway


@contextmanager
def replica_process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "tests.kserve_replica"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def test_a_stream_for_one_model_is_a_plain_relay_in_order(gateway, servicers):
    stream = OpenStream(gateway, *(request("one", str(number), b"x" * number) for number in range(50)))
    answers = [stream.receive().infer_response for _ in range(50)]
    assert [answer.id for answer in answers] == [str(number) for number in range(50)]
    assert answers[7].raw_output_contents == [b"x" * 7]
    assert ("replica", "here") in stream.call.initial_metadata()
    stream.end()
    assert [answer.infer_response.id for answer in stream.call] == ["last"]
    assert stream.call.code() is grpc.StatusCode.OK
    assert ("served", "yes") in stream.call.trailing_metadata()
    assert len(servicers["one"].streams) == 1
    assert servicers["two"].streams == []


def test_requests_for_several_models_go_to_one_stream_each(gateway, servicers):
    stream = OpenStream(gateway)
    for model in ("one", "two", "zwei", "one"):
        stream.send(request(model, f"for {model}"))
        answer = stream.receive().infer_response
        assert (answer.id, answer.model_name) == (f"for {model}", model)
    assert [len(servicers[name].streams) for name in ("one", "two")] == [1, 1]
    stream.end()
    # Both drain: what they still answer after the half-close arrives.
    assert [answer.infer_response.id for answer in stream.call] == ["last", "last"]
    assert stream.call.code() is grpc.StatusCode.OK


def test_every_response_of_a_decoupled_model_arrives(gateway):
    stream = OpenStream(gateway, request("one", "three"))
    numbers = [stream.receive().infer_response.parameters["number"].int64_param for _ in range(3)]
    assert numbers == [0, 1, 2]
    stream.send(request("one", "quiet"), request("two", "after"))
    assert stream.receive().infer_response.id == "after"
    stream.end()
    assert [answer.error_message for answer in stream.call] == ["", ""]


def test_an_unknown_model_answers_its_request_and_the_stream_goes_on(gateway):
    stream = OpenStream(gateway, request("nobody", "7"), request("one", "8"), request("", "9"), request("two", "10"))
    answers = sorted((stream.receive() for _ in range(4)), key=lambda answer: int(answer.infer_response.id))
    assert [answer.error_message for answer in answers] == [
        "Request for unknown model: 'nobody' is not found",
        "",
        "Request for unknown model: '' is not found",
        "",
    ]
    stream.end()


def test_a_models_own_error_stays_in_the_stream(gateway):
    stream = OpenStream(gateway, request("one", "bad"), request("one", "good"))
    assert (stream.receive().error_message, stream.receive().infer_response.id) == ("the input is bad", "good")
    stream.end()


def test_what_is_no_request_is_one_for_an_unknown_model(gateway):
    stream = OpenStream(gateway, b"\xff\xff\xff", request("one", "1"))
    assert "unknown model" in stream.receive().error_message
    assert stream.receive().infer_response.id == "1"
    stream.end()


def test_with_triton_grpc_error_the_first_error_is_the_streams_status(gateway):
    stream = OpenStream(gateway, request("one", "1"), triton_grpc_error="true")
    assert stream.receive().infer_response.id == "1"
    stream.send(request("nobody", "2"))
    assert stream.refusal() == ("NOT_FOUND", "Request for unknown model: 'nobody' is not found")


def test_a_restricted_key_is_asked_for_when_the_stream_opens(replicas):
    key = {"categories": ["inference"], "key": "infer-key", "value": "secret"}
    one = route("one", replicas["one"].address, restricted_keys=[key])
    with run_contract_gateway(one, route("two", replicas["two"].address)) as gateway:
        text = "This protocol is restricted, expecting header 'triton-grpc-protocol-infer-key'"
        assert OpenStream(gateway, request("one")).refusal() == ("UNAVAILABLE", text)
        wrong = OpenStream(gateway, request("one"), triton_grpc_protocol_infer_key="wrong")
        assert wrong.refusal() == ("UNAVAILABLE", text)
        stream = OpenStream(gateway, request("one", "1"), triton_grpc_protocol_infer_key="secret")
        assert stream.receive().infer_response.id == "1"
        stream.end()
        # It cannot be gone round by opening the stream with another model.
        stream = OpenStream(gateway, request("two", "1"), request("one", "2"))
        answers = sorted((stream.receive() for _ in range(2)), key=lambda answer: str(answer.infer_response.id))
        assert [answer.error_message for answer in answers] == ["", text]
        stream.end()


def test_a_prefix_or_an_application_sends_the_whole_stream_to_its_deployment(gateway, servicers):
    stream = OpenStream(gateway, request("two", "1"), prefix="/first")
    assert stream.receive().infer_response.model_name == "two"
    stream.end()
    assert list(stream.call)[-1].infer_response.id == "last"
    stream = OpenStream(gateway, request("two", "1"), application="one")
    assert stream.receive().infer_response.id == "1"
    stream.end()
    assert [len(servicers[name].streams) for name in ("one", "two")] == [2, 0]


@pytest.mark.parametrize(("request_id", "code"), [("end", "OK"), ("fail", "ABORTED")])
def test_the_end_of_the_only_replicas_stream_is_the_streams_end_though_the_client_goes_on(gateway, request_id, code):
    stream = OpenStream(gateway, request("one", "1"), request("one", request_id))
    assert stream.receive().infer_response.id == "1"
    if code == "OK":
        assert list(stream.call) == []
    else:
        assert stream.refusal() == (code, "the server gave up")
    stream.end()
    assert stream.call.code().name == code


@pytest.mark.parametrize(("request_id", "says"), [("end", "'one' ended its stream."), ("fail", "the server gave up")])
def test_of_several_models_one_that_ends_answers_its_requests_and_comes_back(gateway, request_id, says):
    stream = OpenStream(gateway, request("two", "1"), request("one", "quiet"), request("one", request_id))
    answers = sorted((stream.receive() for _ in range(3)), key=lambda answer: str(answer.infer_response.id))
    assert [(answer.infer_response.id, answer.error_message) for answer in answers] == [
        ("1", ""),
        *sorted([(request_id, says), ("quiet", says)]),
    ]
    stream.send(request("one", "3"), request("two", "4"))
    assert {stream.receive().infer_response.id for _ in range(2)} == {"3", "4"}
    stream.end()


def test_a_killed_replica_ends_the_stream_of_its_model_with_unavailable():
    with replica_process() as (process, address), run_contract_gateway(route("one", address)) as gateway:
        stream = OpenStream(gateway, request("one", "1"))
        assert stream.receive().infer_response.id == "1"
        process.kill()
        assert stream.refusal()[0] == "UNAVAILABLE"


def test_of_several_models_a_killed_replica_answers_its_requests_with_an_error(replicas):
    with (
        replica_process() as (process, address),
        run_contract_gateway(route("one", address), route("two", replicas["two"].address)) as gateway,
    ):
        stream = OpenStream(gateway, request("two", "1"), request("one", "2"))
        assert {stream.receive().infer_response.id for _ in range(2)} == {"1", "2"}
        stream.send(request("one", "quiet"), request("two", "3"))
        assert stream.receive().infer_response.id == "3"
        process.kill()
        answer = stream.receive()
        assert answer.error_message
        assert answer.infer_response.id == "quiet"
        stream.send(request("two", "4"))
        assert stream.receive().infer_response.id == "4"
        stream.end()


def test_a_model_without_a_replica_is_unavailable():
    with run_contract_gateway(route("one", start_timeout_s=1)) as gateway:
        assert OpenStream(gateway, request("one")).refusal()[0] == "UNAVAILABLE"


def test_of_several_models_one_without_a_replica_answers_its_request(replicas):
    with run_contract_gateway(route("one", start_timeout_s=1), route("two", replicas["two"].address)) as gateway:
        stream = OpenStream(gateway, request("two", "1"), request("one", "2"))
        assert stream.receive().infer_response.id == "1"
        answer = stream.receive()
        assert "No replica of 'one' became ready" in answer.error_message
        assert answer.infer_response.id == "2"
        stream.end()


def test_a_cancelled_stream_is_cancelled_at_every_replica(gateway, servicers):
    stream = OpenStream(gateway, request("one", "1"), request("two", "2"))
    assert {stream.receive().infer_response.id for _ in range(2)} == {"1", "2"}
    stream.send(request("one", "busy"), request("two", "busy"), request("nobody", "3"))
    assert stream.receive().infer_response.id == "3"
    stream.call.cancel()
    stream.end()
    for servicer in servicers.values():
        assert servicer.cancelled.wait(SOON_S)


def test_a_stream_without_any_request_ends_with_ok(gateway):
    stream = OpenStream(gateway)
    stream.end()
    assert list(stream.call) == []
    assert stream.call.code() is grpc.StatusCode.OK
