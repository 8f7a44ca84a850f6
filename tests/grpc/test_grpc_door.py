"""Calls through the gRPC door of the Compose stack, over TLS, to containers: what passes, is refused, survives.

Each test that depends on how Traefik reads HTTP/2 runs by both names: `grpc.<domain>` and the domain itself. The stack
is the one on which test_stack.py deploys the examples: these tests come first, and take away what they deployed.
"""

import contextlib
import queue
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from tests.e2e.compose import service_of
from tests.e2e.grpc_door import NAME, GrpcDoor, application, fresh_name
from tests.e2e.images import call_server_image
from tests.e2e.inside import (
    ASK_WITH_TOKEN,
    container_of,
    host_on,
    listener_on_host,
    network_of,
    reached_from,
    run_inside,
    unguarded,
    variables_of,
)
from tests.waiting import PATIENCE_S, wait_until

NAMES = pytest.mark.parametrize("name", [NAME, None], ids=["by-name", "by-path"])
TAIL = "Ping /ray.serve.RayServeAPIService/ListApplications for available applications."
HEALTHZ = "/ray.serve.RayServeAPIService/Healthz"
LIST = "/ray.serve.RayServeAPIService/ListApplications"


@pytest.fixture(scope="module")
def stack(bare_stack: GrpcDoor) -> Iterator[GrpcDoor]:
    yield bare_stack
    bare_stack.clear()


@pytest.fixture(scope="module")
def echo(stack: GrpcDoor) -> str:
    """A deployment that most tests share."""
    return stack.deploy(call_server_image(), replicas_max=1)


@pytest.fixture(scope="module", autouse=True)
def long_streams(stack: GrpcDoor, echo: str) -> Iterator[list[Future[list[bytes]]]]:
    """One stream by each way in, of more than a minute, beside the other tests of this module."""
    with ExitStack() as opened, ThreadPoolExecutor(2) as pool:
        channels = [opened.enter_context(stack.channel(name)) for name in (NAME, None)]
        metadata = application(echo, ("pause", "5"))
        yield [
            pool.submit(list, channel.unary_stream("/calls.Echo/Count")(b"14", metadata=metadata, timeout=600))
            for channel in channels
        ]


@pytest.fixture
def only(stack: GrpcDoor) -> Iterator[GrpcDoor]:
    """The stack without any deployment but the test's own."""
    stack.clear()
    yield stack
    stack.clear()


def code_of(call: Any, *arguments: Any, **options: Any) -> tuple[grpc.StatusCode, str]:
    """How a call fails."""

    def complete() -> None:
        answer = call(*arguments, **options)
        if hasattr(answer, "__next__"):
            list(answer)

    with pytest.raises(grpc.RpcError) as caught:
        complete()
    return caught.value.code(), caught.value.details()


def trailers_of(call: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
    """The trailing metadata of a call, whether or not it fails."""
    try:
        _, done = call.with_call(*arguments, **options)
    except grpc.RpcError as error:
        done = error
    return dict(done.trailing_metadata())


@NAMES
def test_all_four_kinds_of_methods_pass(stack: GrpcDoor, echo: str, name: str | None) -> None:
    with stack.channel(name) as channel:
        metadata = application(echo)
        assert channel.unary_unary("/calls.Echo/Call")(b"\x00\xff", metadata=metadata, timeout=60) == b"\x00\xff"
        assert list(channel.unary_stream("/calls.Echo/Count")(b"3", metadata=metadata, timeout=60)) == [
            b"0",
            b"1",
            b"2",
        ]
        upload = channel.stream_unary("/calls.Echo/Upload")
        assert upload(iter([b"a", b"", b"bcd"]), metadata=metadata, timeout=60) == b"3 4"
        chat = channel.stream_stream("/calls.Echo/Chat")
        assert list(chat(iter([b"x", b"y"]), metadata=metadata, timeout=60)) == [b"x", b"y"]


@NAMES
def test_a_message_of_64_mib_passes_both_ways(stack: GrpcDoor, echo: str, name: str | None) -> None:
    message = bytes(range(256)) * (64 * 1024**2 // 256)
    options = {"grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1}
    with stack.channel(name, options) as channel:
        assert channel.unary_unary("/calls.Echo/Call")(message, metadata=application(echo), timeout=60) == message


@NAMES
@pytest.mark.parametrize(
    ("last", "code"), [(b"end", grpc.StatusCode.OK), (b"deny", grpc.StatusCode.UNAUTHENTICATED)], ids=["ok", "denied"]
)
def test_a_stream_that_the_container_ends_early_ends_at_once(
    stack: GrpcDoor, echo: str, name: str | None, last: bytes, code: grpc.StatusCode
) -> None:
    requests: queue.Queue[bytes | None] = queue.Queue()
    requests.put(b"one")
    requests.put(last)
    with stack.channel(name) as channel:
        # The client keeps its side open: nothing ever ends the iterator.
        call = channel.stream_stream("/calls.Echo/Chat")(iter(requests.get, None), metadata=application(echo))
        answers: list[bytes] = []
        ended = threading.Event()

        def read() -> None:
            with contextlib.suppress(grpc.RpcError):
                answers.extend(call)
            ended.set()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        assert ended.wait(PATIENCE_S), "the end of the stream was held back"
        assert call.code() is code
        assert answers[0] == b"one"
        requests.put(None)
        reader.join(PATIENCE_S)


@NAMES
def test_codes_details_and_trailers_of_the_container_pass(stack: GrpcDoor, echo: str, name: str | None) -> None:
    with stack.channel(name) as channel:
        call = channel.unary_unary("/calls.Echo/Status")
        metadata = application(
            echo, ("code", "FAILED_PRECONDITION"), ("details-bin", "naïve ☃".encode()), ("request_id", "r-1")
        )
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", metadata=metadata, timeout=60)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "naïve ☃"
    trailers = dict(caught.value.trailing_metadata())
    assert (trailers["first"], trailers["second-bin"], trailers["request_id"]) == ("1", b"\x00\xff", "r-1")


def test_a_failure_that_nobody_handles_is_told_in_at_most_4096_characters(stack: GrpcDoor, echo: str) -> None:
    with stack.channel() as channel:
        code, details = code_of(channel.unary_unary("/calls.Echo/Boom"), b"", metadata=application(echo), timeout=60)
    assert code in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
    assert "boom" in details
    assert len(details) <= 4096


def test_a_method_nobody_has_is_unimplemented(stack: GrpcDoor, echo: str) -> None:
    with stack.channel() as channel:
        code, _ = code_of(channel.unary_unary("/calls.Echo/Nothing"), b"", metadata=application(echo), timeout=60)
    assert code is grpc.StatusCode.UNIMPLEMENTED


def test_every_answer_carries_a_request_id(stack: GrpcDoor, echo: str) -> None:
    with stack.channel() as channel:
        call, sleep = channel.unary_unary("/calls.Echo/Call"), channel.unary_unary("/calls.Echo/Sleep")
        given = ("request_id", "given-1")
        assert trailers_of(call, b"", metadata=application(echo, given), timeout=60)["request_id"] == "given-1"
        made = trailers_of(call, b"", metadata=application(echo), timeout=60)["request_id"]
        assert made != trailers_of(call, b"", metadata=application(echo), timeout=60)["request_id"]
        assert len(made) == 36
        seen = channel.unary_unary("/calls.Echo/Metadata")(b"", metadata=application(echo, given), timeout=60)
        assert b"request_id=given-1" in seen
        wrong = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        assert "request_id" in trailers_of(wrong, b"\x0a\x07missing", timeout=60)
        assert trailers_of(sleep, b"x", metadata=application(echo, given), timeout=60)["request_id"] == "given-1"


def test_what_only_the_door_may_say_never_comes_from_a_client(stack: GrpcDoor, echo: str) -> None:
    metadata = application(echo, ("x-is-caller", "mallory"), ("authorization", "Basic c2VjcmV0"), ("x-mine", "kept"))
    with stack.channel() as channel:
        seen = channel.unary_unary("/calls.Echo/Metadata")(b"", metadata=metadata, timeout=60)
    assert b"x-mine=kept" in seen
    assert b"mallory" not in seen
    assert b"c2VjcmV0" not in seen


def test_the_callers_deadline_reaches_the_container(stack: GrpcDoor, echo: str) -> None:
    with stack.channel() as channel:
        began = time.monotonic()
        left = channel.unary_unary("/calls.Echo/Deadline")(b"", metadata=application(echo), timeout=90)
    # On each way gRPC rounds a timeout up, to a unit that fits its header; the answer has four decimals.
    assert 90 - (time.monotonic() - began) - 0.0001 <= float(left) <= 91


def test_a_cancelled_call_is_cancelled_in_the_container(stack: GrpcDoor, echo: str) -> None:
    with stack.channel() as channel:
        count = channel.unary_unary("/calls.Echo/Cancellations")

        def cancelled() -> int:
            return int(count(b"", metadata=application(echo), timeout=60))

        before = cancelled()
        unary = channel.unary_unary("/calls.Echo/Sleep").future(b"60", metadata=application(echo))
        requests: queue.Queue[bytes | None] = queue.Queue()
        requests.put(b"hello")
        stream = channel.stream_stream("/calls.Echo/Chat")(iter(requests.get, None), metadata=application(echo))
        assert next(stream) == b"hello"
        sleepers = channel.unary_unary("/calls.Echo/Sleepers")
        wait_until(lambda: sleepers(b"", metadata=application(echo), timeout=60) != b"0")
        unary.cancel()
        stream.cancel()
        requests.put(None)
        wait_until(lambda: cancelled() == before + 2)


def test_a_thousand_calls_on_one_channel_run_at_once(stack: GrpcDoor) -> None:
    model = stack.deploy(call_server_image(), max_in_flight=4000)
    with stack.channel() as channel:
        sleep = channel.unary_unary("/calls.Echo/Sleep")
        sleep(b"0", metadata=application(model), timeout=60)
        sleepers = channel.unary_unary("/calls.Echo/Sleepers")
        calls = [sleep.future(b"3600", metadata=application(model)) for _ in range(1000)]
        # HTTP/2 proxies allow 250 by default: the others would wait until those end.
        wait_until(lambda: sleepers(b"", metadata=application(model), timeout=60) == b"1000")
        for call in calls:
            call.cancel()
    stack.undeploy(model)


@NAMES
def test_sixty_four_streams_are_open_at_once_on_one_channel(stack: GrpcDoor, echo: str, name: str | None) -> None:
    sent = [queue.SimpleQueue[bytes | None]() for _ in range(64)]
    with stack.channel(name) as channel:
        chat = channel.stream_stream("/calls.Echo/Chat")
        streams = [chat(iter(each.get, None), metadata=application(echo), timeout=60) for each in sent]
        # Each round goes to every stream before any answer is read: none waits for another's end.
        for turn in range(3):
            for number, each in enumerate(sent):
                each.put(f"{turn} {number}".encode())
            assert [next(stream) for stream in streams] == [f"{turn} {number}".encode() for number in range(64)]
        for each in sent:
            each.put(None)
        assert [list(stream) for stream in streams] == [[]] * 64


def test_a_deployments_own_limit_ends_a_call(stack: GrpcDoor) -> None:
    model = stack.deploy(call_server_image(), call_timeout_s=1.0)
    with stack.channel() as channel:
        failed = code_of(channel.unary_unary("/calls.Echo/Sleep"), b"30", metadata=application(model), timeout=60)
    assert failed == (grpc.StatusCode.DEADLINE_EXCEEDED, "Request timed out after 1.0s.")
    stack.undeploy(model)


def test_a_full_queue_is_told_and_health_still_answers(stack: GrpcDoor) -> None:
    model = stack.deploy(call_server_image(), max_in_flight=1, max_queued=1)
    with stack.channel() as channel, stack.channel(None) as control:
        sleep = channel.unary_unary("/calls.Echo/Sleep")
        # Limits are shared out to the gateway's processes; one channel leads to one of them. From the first answer on
        # it knows the replica: before, calls for it wait, and count as queued.
        sleep(b"0", metadata=application(model), timeout=60)
        calls = [sleep.future(b"5", metadata=application(model), timeout=60) for _ in range(6)]
        codes = Counter(call.code() for call in calls)
        assert codes[grpc.StatusCode.OK] >= 2
        assert codes[grpc.StatusCode.RESOURCE_EXHAUSTED] >= 3
        assert codes.total() == codes[grpc.StatusCode.OK] + codes[grpc.StatusCode.RESOURCE_EXHAUSTED]
        busy = sleep.future(b"3600", metadata=application(model))
        for by in (channel, control):
            assert by.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=60) == b"\x08\x01"
        assert not busy.done()
        busy.cancel()
    stack.undeploy(model)


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_a_killed_container_is_unavailable_and_comes_back(stack: GrpcDoor, kind: str) -> None:
    model = stack.deploy(call_server_image())
    before = stack.replicas(model)[0]["uid"]
    with stack.channel() as channel:
        if kind == "unary":
            failed = code_of(channel.unary_unary("/calls.Echo/Exit"), b"", metadata=application(model), timeout=60)
        else:
            chat = channel.stream_stream("/calls.Echo/Chat")
            failed = code_of(chat, iter([b"one", b"exit"]), metadata=application(model), timeout=60)
        assert failed[0] is grpc.StatusCode.UNAVAILABLE, failed
        # On demand: the next call waits for another replica.
        call = channel.unary_unary("/calls.Echo/Call")
        wait_until(lambda: answers(call, model), lambda: f"{stack.show(model)}\n{stack.system.logs()}")
    assert stack.replicas(model)[0]["uid"] != before
    ended = [row for row in stack.show(model)["replicas"] if row["uid"] == before]
    assert ended[0]["reason"] == "container_ended"
    assert "137" in ended[0]["detail"]
    stack.undeploy(model)


def answers(call: Any, model: str) -> bool:
    try:
        return bool(call(b"x", metadata=application(model), timeout=60) == b"x")
    except grpc.RpcError:
        return False


def test_the_first_call_starts_a_deployment_and_idleness_ends_it(stack: GrpcDoor) -> None:
    model = stack.deploy(call_server_image(), replicas_min=0, idle_timeout_s=3)
    assert stack.show(model)["status"] == "idle"
    with stack.channel() as channel:
        assert channel.unary_unary("/calls.Echo/Call")(b"cold", metadata=application(model), timeout=60) == b"cold"
        wait_until(lambda: stack.show(model)["status"] == "idle" and not stack.replicas(model))
        ended = stack.show(model)["replicas"]
        assert [row["reason"] for row in ended] == ["surplus"]
    stack.undeploy(model)


def test_a_container_that_cannot_start_says_why_and_backs_off(stack: GrpcDoor) -> None:
    model = stack.deploy("busybox:1.37", wait=False, replicas_min=0)
    with stack.channel() as channel:
        call = channel.unary_unary("/calls.Echo/Call")
        code, details = code_of(call, b"x", metadata=application(model), timeout=60)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "exit code 0" in details or "ended" in details, details
    shown = stack.show(model)
    assert shown["status"] == "failing"
    assert shown["failures"] >= 1
    assert shown["next_start_at"]
    stack.undeploy(model)


def test_two_replicas_share_the_calls_and_a_multiplexed_model_sticks_to_one(stack: GrpcDoor) -> None:
    model = stack.deploy(call_server_image(), replicas_min=2, replicas_max=2)
    with stack.channel() as channel:
        who = channel.unary_unary("/calls.Echo/Who")
        spread = Counter(who(b"", metadata=application(model), timeout=60) for _ in range(200))
        assert len(spread) == 2
        assert min(spread.values()) >= 60, spread
        for multiplexed in ("a", "b", "c"):
            metadata = application(model, ("multiplexed_model_id", multiplexed))
            assert len({who(b"", metadata=metadata, timeout=60) for _ in range(20)}) == 1
    stack.undeploy(model)


def test_a_replica_that_drains_fails_no_call(stack: GrpcDoor) -> None:
    model = stack.deploy(call_server_image(), replicas_min=2, replicas_max=2)
    stopped = threading.Event()
    failures: list[grpc.RpcError] = []
    answered = Counter[str]()
    with stack.channel() as channel:
        sleep = channel.unary_unary("/calls.Echo/Sleep")

        def load() -> None:
            while not stopped.is_set():
                try:
                    sleep(b"0.2", metadata=application(model), timeout=60)
                    answered["calls"] += 1
                except grpc.RpcError as error:
                    failures.append(error)

        with ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(load)
            stack.redeploy(model, replicas_min=1, replicas_max=1, wait=False, idle_timeout_s=1)
            try:
                wait_until(lambda: len(stack.replicas(model)) == 1 and live(stack, model) == 1)
            finally:
                stopped.set()
    assert not failures
    assert answered["calls"] > 0
    stack.undeploy(model)


def live(stack: GrpcDoor, model: str) -> int:
    return sum(row["status"] != "ended" for row in stack.show(model)["replicas"])


def test_prefixes_never_cross_and_work_in_both_forms(stack: GrpcDoor) -> None:
    one, two = (fresh_name() for _ in range(2))
    deployed = {
        prefix: stack.deploy(call_server_image(), prefix=prefix, default_service="calls.Echo") for prefix in (one, two)
    }
    uids = {prefix: stack.replicas(model)[0]["uid"].encode() for prefix, model in deployed.items()}
    for name in (NAME, None):
        with stack.channel(name) as channel:
            for prefix, uid in uids.items():
                for path in (f"/{prefix}/Who", f"/{prefix}/calls.Echo/Who"):
                    assert channel.unary_unary(path)(b"", timeout=60) == uid
            code, _ = code_of(channel.unary_unary("/nowhere/Who"), b"", timeout=60)
            assert code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)
    answer = stack.door.http.post(
        f"/api/models/{stack.door.add_model(call_server_image())}/deployment", json={"port": 9000, "prefix": one}
    )
    assert answer.status_code == 409
    assert deployed[one] in answer.json()["detail"]
    for model in deployed.values():
        stack.undeploy(model)


def test_a_stream_lives_longer_than_a_minute(long_streams: list[Future[list[bytes]]]) -> None:
    assert [len(stream.result()) for stream in long_streams] == [14, 14]


def test_applications_are_listed_and_chosen_by_name(only: GrpcDoor) -> None:
    only.wait_routed()
    with only.channel() as channel:
        call, unset = channel.unary_unary("/calls.Echo/Call"), f"Application metadata not set. {TAIL}"
        for path in (LIST, HEALTHZ):
            failed = code_of(channel.unary_unary(path), b"", timeout=60)
            assert failed == (grpc.StatusCode.UNAVAILABLE, "Route table is not populated yet.")
        assert code_of(call, b"", timeout=60) == (grpc.StatusCode.NOT_FOUND, unset)

        first = only.deploy(call_server_image(), application="app1")
        only.wait_routed("app1")
        assert channel.unary_unary(HEALTHZ)(b"", timeout=60) == b"\x0a\x07success"
        for metadata in ((), application("app1")):
            assert call(b"only one", metadata=metadata, timeout=60) == b"only one"
        unknown = (grpc.StatusCode.NOT_FOUND, f"Application 'nope' not found. {TAIL}")
        assert code_of(call, b"", metadata=application("nope"), timeout=60) == unknown

        only.deploy(call_server_image(), application="app2")
        only.wait_routed("app1", "app2")
        assert call(b"x", metadata=application("app2"), timeout=60) == b"x"
        assert code_of(call, b"", timeout=60) == (grpc.StatusCode.NOT_FOUND, unset)
        assert code_of(call, b"", metadata=application("nope"), timeout=60) == unknown
        only.undeploy(first)
        only.wait_routed("app2")


def test_a_name_nobody_has_is_refused(stack: GrpcDoor) -> None:
    with stack.channel("other.localhost") as channel:
        code, _ = code_of(channel.unary_unary(HEALTHZ), b"", timeout=60)
    assert code is grpc.StatusCode.UNAVAILABLE


def test_a_second_gateway_does_not_share_the_port(stack: GrpcDoor) -> None:
    gateway = service_of(stack.system, "grpc-gateway")
    second = ["docker", "exec", gateway.container, "python", "-m", "grpc_gateway"]
    done = subprocess.run(second, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3, done
    assert "9000" in done.stdout + done.stderr


def test_an_express_route_leads_straight_to_the_replica(stack: GrpcDoor) -> None:
    model = stack.deploy(call_server_image(), express=True)
    uid = stack.replicas(model)[0]["uid"].encode()

    def reached() -> bool:
        with stack.channel(f"{model}.{NAME}") as channel:
            try:
                return bool(channel.unary_unary("/calls.Echo/Who")(b"", timeout=3) == uid)
            except grpc.RpcError:
                return False

    wait_until(reached, stack.system.logs)
    stack.undeploy(model)


@pytest.fixture
def caller(stack: GrpcDoor) -> Iterator[str]:
    """A deployment of its own: the one that others share may be gone already."""
    model = stack.deploy(call_server_image(), replicas_max=1)
    yield model
    stack.undeploy(model)


def test_a_replica_reaches_the_gateways_door_for_it_and_nothing_else(stack: GrpcDoor, caller: str) -> None:
    uid = stack.replicas(caller)[0]["uid"]
    replica, network = container_of(uid), network_of(uid)
    neighbour = stack.deploy(call_server_image())
    other = stack.replicas(neighbour)[0]["address"]
    inside = ("grpc-gateway", 9002)
    with listener_on_host() as port, unguarded(call_server_image(), network) as beside:
        host, _, neighbours_port = other.rpartition(":")
        targets = [
            inside,
            *(("grpc-gateway", 9000), ("grpc-gateway", 9001), ("traefik", 80), ("traefik", 443)),
            (host_on(network), port),
        ]
        assert reached_from(beside, targets) == dict.fromkeys(targets, "reached")
        closed = [*targets[1:], (host, int(neighbours_port)), (host, 22)]
        expected = dict.fromkeys(closed, "refused")
        assert reached_from(replica, [inside, *closed]) == {inside: "reached", **expected}
    # Nor does anybody on the host reach it.
    with pytest.raises(OSError, match=r"host|timed out"):
        socket.create_connection((host, int(neighbours_port)), timeout=3)
    stack.undeploy(neighbour)


def test_the_token_of_a_replica_is_honoured_inside_alone(stack: GrpcDoor, caller: str) -> None:
    replica = container_of(stack.replicas(caller)[0]["uid"])
    variables = variables_of(replica)
    assert variables["GRPC_GATEWAY"] == "grpc-gateway:9002"
    assert caller in run_inside(replica, ASK_WITH_TOKEN)
    with stack.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/calls.Echo/Call")(
            b"", metadata=(*application(caller), ("authorization", f"Bearer {variables['GATEWAY_TOKEN']}")), timeout=60
        )
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "only from inside its container" in refused.value.details()
