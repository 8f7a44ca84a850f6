"""Calls of any service and kind pass the gateway unchanged, in both directions, to the end."""

import json
import queue
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress

import grpc
import pytest

from tests.integration.grpc_backend import Backend, run_backend
from tests.integration.grpc_harness import RunningGateway, route, run_harness_gateway, status_of, trailers_of
from tests.waiting import check_for, wait_until, wait_until_still

CODE = grpc.StatusCode


@pytest.fixture
def backend() -> Iterator[Backend]:
    with run_backend() as backend:
        yield backend


@pytest.fixture
def gateway(backend: Backend) -> Iterator[RunningGateway]:
    with run_harness_gateway() as gateway:
        gateway.give(route("m", backend))
        yield gateway


class Sender:
    """Messages of a caller that stays open until it is told to end."""

    def __init__(self, *messages: bytes) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        for message in messages:
            self._queue.put(message)

    def send(self, message: bytes) -> None:
        self._queue.put(message)

    def end(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (message := self._queue.get()) is not None:
            yield message


def test_every_kind_of_call_passes(gateway: RunningGateway, backend: Backend) -> None:
    channel = gateway.channel
    assert channel.unary_unary("/user.Own/Echo")(b"one", timeout=60) == b"one"
    many = channel.unary_stream("/user.Own/Many")(b"", metadata=(("count", "3"), ("size", "5")), timeout=60)
    assert list(many) == [bytes(5)] * 3
    assert channel.stream_unary("/user.Own/Join")(iter([b"a", b"b", b"c"]), timeout=60) == b"abc"
    assert list(channel.stream_stream("/user.Own/Echo")(iter([b"x", b"", b"y"]), timeout=60)) == [b"x", b"", b"y"]
    assert set(backend.paths()) == {"/user.Own/Echo", "/user.Own/Many", "/user.Own/Join"}


def test_a_replica_may_speak_first(gateway: RunningGateway) -> None:
    caller = Sender()
    call = gateway.stream("/user.Own/ServerFirst")(iter(caller), timeout=60)
    assert dict(call.initial_metadata())["greeting"] == "hello"
    assert next(call) == b"welcome"
    caller.send(b"and you")
    assert next(call) == b"and you"
    caller.end()
    assert list(call) == []
    assert call.code() is CODE.OK


def test_metadata_passes_both_ways(gateway: RunningGateway) -> None:
    sent = (("my-own", "1"), ("x-is-user", "root"), ("authorization", "Basic abc"), ("traceparent", "00-ab"))
    call = gateway.unary("/user.Own/Metadata")
    answer, rpc = call.with_call(b"", metadata=sent, timeout=60)
    told = json.loads(answer)
    assert told["my-own"] == "1"
    assert told["traceparent"] == "00-ab"
    # Reserved names and credentials stop at the gateway.
    assert "x-is-user" not in told
    assert "authorization" not in told
    assert dict(rpc.initial_metadata())["first"] == "one"
    assert dict(rpc.initial_metadata())["bytes-bin"] == b"\x00\xff"
    trailers = [(name, value) for name, value in rpc.trailing_metadata() if name in ("last", "more-bin")]
    assert trailers == [("last", "a"), ("last", "b"), ("more-bin", b"\x01")]


def test_a_request_id_is_echoed_or_made_and_passed_on(gateway: RunningGateway) -> None:
    call = gateway.unary("/user.Own/Metadata")
    answer, rpc = call.with_call(b"", metadata=(("request_id", "mine"),), timeout=60)
    ids = [value for name, value in rpc.trailing_metadata() if name == "request_id"]
    # The replica said another one: the caller's stands, and once.
    assert ids == ["mine"]
    assert json.loads(answer)["request_id"] == "mine"
    answer, rpc = call.with_call(b"", timeout=60)
    made = trailers_of(rpc)["request_id"]
    assert str(uuid.UUID(made)) == made
    assert json.loads(answer)["request_id"] == made


def test_every_error_has_the_request_id(gateway: RunningGateway, backend: Backend) -> None:
    given = (("request_id", "r-1"),)
    own = (*given, ("code", "ABORTED"), ("details-bin", b"no"))
    failed = status_of(lambda: gateway.unary("/user.Own/Fail")(b"", metadata=own, timeout=60))
    assert (failed.code(), failed.details()) == (CODE.ABORTED, "no")
    assert trailers_of(failed) == {"request_id": "r-1", "why": "asked"}
    gateway.give(route("m", backend), route("n", backend))
    for path, code in (("/user.Own/Echo", CODE.NOT_FOUND), ("/x/user.Own/Echo", CODE.NOT_FOUND)):
        refused = status_of(lambda path=path: gateway.unary(path)(b"", metadata=given, timeout=60))
        assert (refused.code(), trailers_of(refused)["request_id"]) == (code, "r-1")


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_statuses_of_replicas_pass_unchanged(gateway: RunningGateway, kind: str) -> None:
    def fail(code: grpc.StatusCode) -> object:
        metadata = (("code", code.name), ("details-bin", "because: \u00e4\u4e2d %\n".encode()))
        if kind == "unary":
            return gateway.unary("/user.Own/Fail")(b"", metadata=metadata, timeout=60)
        return list(gateway.stream("/user.Own/Fail")(iter([b""]), metadata=metadata, timeout=60))

    for code in set(CODE) - {CODE.OK}:
        failed = status_of(lambda code=code: fail(code))
        assert (failed.code(), failed.details()) == (code, "because: \u00e4\u4e2d %\n")
        assert trailers_of(failed)["why"] == "asked"


def test_long_details_arrive_shortened(gateway: RunningGateway) -> None:
    def details_of(text: str, times: int) -> str:
        metadata = (("code", "INTERNAL"), ("details-bin", text.encode()), ("times", str(times)))
        details = status_of(lambda: gateway.unary("/user.Own/Fail")(b"", metadata=metadata, timeout=60)).details()
        assert isinstance(details, str)
        return details

    assert details_of("x", 4096) == "x" * 4096
    assert details_of("x", 100_000) == "x" * 4096
    # Nine bytes each on the wire, where clients take no more than 8 KiB.
    chinese = details_of("\u4e2d", 10_000)
    assert set(chinese) == {"\u4e2d"}
    assert 500 < len(chinese) < 900


def test_a_deadline_reaches_the_replica(gateway: RunningGateway, backend: Backend) -> None:
    began = time.monotonic()
    call = gateway.unary("/user.Own/Held").future(b"", timeout=600)
    wait_until(lambda: backend.seen, "the call arrives")
    (_, _, remaining) = backend.seen[0]
    assert remaining is not None
    # On each of the two ways gRPC rounds a timeout up, to a unit that fits its header.
    assert 600 - (time.monotonic() - began) <= remaining <= 620
    call.cancel()


def test_a_call_past_its_deadline_ends_at_the_replica_too(gateway: RunningGateway, backend: Backend) -> None:
    call = gateway.unary("/user.Own/Held").future(b"", timeout=5)
    wait_until(lambda: backend.seen, "the call arrives")
    assert status_of(call.result).code() is CODE.DEADLINE_EXCEEDED
    wait_until(lambda: backend.cancelled, "the replica's call is over, too")


def test_a_call_without_a_deadline_has_none_at_the_replica(gateway: RunningGateway, backend: Backend) -> None:
    gateway.unary("/user.Own/Echo")(b"")
    assert backend.seen[0][2] is None


@pytest.mark.parametrize("path", ["/user.Own/Held", "/inference.GRPCInferenceService/Held"])
def test_the_deployments_own_time_limit_is_told_in_rays_words(
    gateway: RunningGateway, backend: Backend, path: str
) -> None:
    gateway.give(route("m", backend, call_timeout_s=5, allow_admin=True))
    late = status_of(lambda: gateway.unary(path)(b"", timeout=60))
    assert (late.code(), late.details()) == (CODE.DEADLINE_EXCEEDED, "Request timed out after 5.0s.")
    assert "request_id" in trailers_of(late)
    wait_until(lambda: backend.cancelled, "the replica's call is cancelled")


def test_the_time_limit_of_calls_does_not_end_streams(gateway: RunningGateway, backend: Backend) -> None:
    gateway.give(route("m", backend, call_timeout_s=0.3))
    caller = Sender(b"1")
    call = gateway.stream("/user.Own/Echo")(iter(caller), timeout=60)
    assert next(call) == b"1"
    check_for(0.6, lambda: not backend.cancelled, "the stream is open after twice the limit")
    caller.send(b"2")
    assert next(call) == b"2"
    caller.end()
    assert list(call) == []
    join = gateway.channel.stream_unary("/user.Own/Join")
    assert join(iter([b"a", b"b"]), metadata=(("pause", "0.6"),), timeout=60) == b"ab"


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_a_cancel_reaches_the_replica(gateway: RunningGateway, backend: Backend, kind: str) -> None:
    backend.works_after_end = 10
    if kind == "unary":
        call = gateway.unary("/user.Own/Held").future(b"")
    else:
        call = gateway.stream("/user.Own/Echo")(iter(Sender(b"1")))
        assert next(call) == b"1"
    wait_until(lambda: backend.seen, "the call arrives")
    call.cancel()
    wait_until(lambda: backend.cancelled, "the replica sees the cancel")
    assert backend.finished == []
    wait_until(lambda: gateway.server.door.open_calls == 0, "the gateway has forgotten the call")


@pytest.mark.parametrize(("metadata", "code"), [((), CODE.OK), ((("code", "UNAUTHENTICATED"),), CODE.UNAUTHENTICATED)])
def test_a_stream_that_the_replica_ends_early_ends_for_the_caller_at_once(
    gateway: RunningGateway, metadata: tuple[tuple[str, str], ...], code: grpc.StatusCode
) -> None:
    # The caller's side stays open all the time.
    call = gateway.stream("/user.Own/EarlyEnd")(iter(Sender(b"1")), metadata=metadata, timeout=60)
    assert next(call) == b"1"
    if code is CODE.OK:
        assert list(call) == []
    else:
        assert status_of(lambda: next(call)).code() is code
    assert "request_id" in trailers_of(call)


def test_no_status_is_lost_to_a_message_that_comes_too_late(gateway: RunningGateway) -> None:
    metadata = (("code", "ABORTED"),)
    for _ in range(200):
        # The replica ends each without a look at what the caller sends.
        call = gateway.stream("/user.Own/Fail")(iter([b"x"] * 20), metadata=metadata, timeout=60)
        assert status_of(lambda call=call: next(call)).code() is CODE.ABORTED


def test_no_message_is_lost_to_the_status_that_follows(gateway: RunningGateway) -> None:
    for code in (CODE.OK, CODE.ABORTED):
        metadata = (("count", "200"), ("size", "100"), *((("code", code.name),) if code is not CODE.OK else ()))
        for _ in range(20):
            call = gateway.channel.unary_stream("/user.Own/Many")(b"", metadata=metadata, timeout=60)
            assert len([next(call) for _ in range(200)]) == 200
            assert call.code() is code


def test_large_messages_pass(gateway: RunningGateway) -> None:
    message = bytes(range(256)) * (4 * 64 * 1024)
    assert len(message) == 64 * 1024**2
    assert gateway.unary("/user.Own/Echo")(message, timeout=60) == message


def test_a_caller_that_does_not_read_holds_the_replica_back(gateway: RunningGateway, backend: Backend) -> None:
    metadata = (("count", "1000"), ("size", str(1024**2)))
    call = gateway.channel.unary_stream("/user.Own/Many")(b"", metadata=metadata, timeout=60)
    assert len(next(call)) == 1024**2
    # What fits into the windows of two connections, and not the thousand.
    assert wait_until_still(lambda: len(backend.received)) < 50
    call.cancel()


def test_a_replica_that_does_not_read_holds_the_caller_back(gateway: RunningGateway, backend: Backend) -> None:
    taken = 0

    def messages() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield bytes(1024**2)

    call = gateway.stream("/user.Own/Stuck")(messages(), timeout=60)
    wait_until(lambda: backend.seen, "the stream is open")
    assert wait_until_still(lambda: taken) < 50
    call.cancel()


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_a_replica_that_dies_is_unavailable_at_once(gateway: RunningGateway, kind: str) -> None:
    command = [sys.executable, "-m", "tests.integration.grpc_backend", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        gateway.give(route("m", f"127.0.0.1:{process.stdout.readline().strip()}"))
        if kind == "unary":
            call = gateway.unary("/user.Own/Held").future(b"")
            wait_until(lambda: gateway.run(gateway.server.table.open_calls), "there is a replica")
            wait_until(lambda: sum(gateway.run(gateway.server.table.open_calls).values()) == 1, "the call is open")
        else:
            call = gateway.stream("/user.Own/Echo")(iter(Sender(b"1")))
            assert next(call) == b"1"
        process.kill()
        died = status_of(call.result if kind == "unary" else lambda: next(call))
        assert died.code() is CODE.UNAVAILABLE
        assert "request_id" in trailers_of(died)
        # And so are the next calls, until the table names another replica.
        process.wait()
        gone = [status_of(lambda: gateway.unary("/user.Own/Echo")(b"", timeout=60)) for _ in range(2)]
        assert [error.code() for error in gone] == [CODE.UNAVAILABLE] * 2
        assert "No replica of 'm' can be reached at 127.0.0.1:" in gone[1].details()


@pytest.mark.parametrize("behaviour", ["silent", "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"])
def test_a_replica_that_does_not_speak_grpc_is_told(gateway: RunningGateway, behaviour: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(60)
        accepted: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                accepted.append(connection)
                if behaviour != "silent":
                    # The gateway may be gone already.
                    with connection, suppress(ConnectionError):
                        connection.recv(1024)
                        connection.sendall(behaviour.encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        gateway.give(route("m", f"127.0.0.1:{listener.getsockname()[1]}"))
        refused = status_of(lambda: gateway.unary("/user.Own/Echo")(b"", timeout=60))
        assert refused.code() is CODE.UNAVAILABLE
        assert "nothing that speaks gRPC answers there" in refused.details()
    for connection in accepted:
        connection.close()
    thread.join(60)


def test_a_failure_of_the_gateway_itself_is_told_without_a_trace(gateway: RunningGateway) -> None:
    # A table that breaks under the look-up: there is no other way to make the gateway fail.
    for name, path in (
        ("by_application", "/user.Own/Echo"),
        ("by_model", "/inference.GRPCInferenceService/ModelInfer"),
    ):
        whole = getattr(gateway.server.table, name)
        gateway.run(lambda name=name: setattr(gateway.server.table, name, None))
        failed = status_of(lambda path=path: gateway.unary(path)(b"", timeout=60))
        assert failed.code() is CODE.INTERNAL
        assert failed.details().startswith("The gateway failed and does not know why")
        assert "request_id" in trailers_of(failed)
        gateway.run(lambda name=name, whole=whole: setattr(gateway.server.table, name, whole))
