"""Which replica answers, what happens when replicas come and go, and how long a call waits for one."""

import asyncio
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from contract.deployments import DeploymentStatus
from grpc_gateway.admission import CallClass
from grpc_gateway.generated.kserve_pb2 import ModelInferRequest
from grpc_gateway.statuses import StatusError
from kit.protobuf import text_field
from tests.integration.grpc_backend import Backend, run_backend
from tests.integration.grpc_harness import RunningGateway, route, status_of, trailers_of, uid_of
from tests.tcp_proxy import Mode, TcpProxy
from tests.waiting import PATIENCE_S, wait_until

CODE = grpc.StatusCode
ECHO = "/user.Own/Echo"
HELD = "/user.Own/Held"
KSERVE = "/inference.GRPCInferenceService/"


def served_by(gateway: RunningGateway, **metadata: str) -> str:
    _, rpc = gateway.unary(ECHO).with_call(b"x", metadata=tuple(metadata.items()), timeout=60)
    return trailers_of(rpc)["served-by"]


def open_calls(gateway: RunningGateway) -> dict[str, int]:
    return gateway.run(gateway.server.table.open_calls)


def test_calls_spread_over_replicas(gateway: RunningGateway, one: Backend, two: Backend) -> None:
    gateway.give(route("m", one, two))
    served = Counter(served_by(gateway) for _ in range(300))
    # Six standard deviations of a fair coin.
    assert min(served["one"], served["two"]) > 98


def test_the_replica_with_less_in_flight_is_preferred(gateway: RunningGateway, one: Backend, two: Backend) -> None:
    gateway.give(route("m", one, two))
    held = gateway.unary(HELD).future(b"")
    wait_until(lambda: one.seen or two.seen, "the call is open")
    free = "two" if one.seen else "one"
    assert {served_by(gateway) for _ in range(20)} == {free}
    one.may_go_on.set()
    two.may_go_on.set()
    held.result(60)


@pytest.mark.parametrize("name", ["multiplexed_model_id", "session_id"])
def test_calls_with_an_affinity_stick_to_a_replica(
    gateway: RunningGateway, one: Backend, two: Backend, name: str
) -> None:
    gateway.give(route("m", one, two))
    ids = [f"id-{number}" for number in range(40)]
    first = {each: served_by(gateway, **{name: each}) for each in ids}
    assert min(list(first.values()).count(name) for name in ("one", "two")) >= 5
    assert {each: served_by(gateway, **{name: each}) for each in ids} == first
    with run_backend("three") as three:
        gateway.give(route("m", one, two, three))
        then = {each: served_by(gateway, **{name: each}) for each in ids}
        # Only what the new one took over moved.
        assert {then[each] for each in ids if then[each] != first[each]} == {"three"}
        gateway.give(route("m", one, two))
        assert {each: served_by(gateway, **{name: each}) for each in ids} == first


def in_sequence(number: int) -> bytes:
    """A request for the model `m` within a sequence, as Triton's client writes it."""
    request = ModelInferRequest(model_name="m", raw_input_contents=[b"x" * 1000])
    request.parameters["sequence_id"].int64_param = number
    request.parameters["sequence_start"].bool_param = False
    return request.SerializeToString()


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_a_sequence_of_a_stateful_model_sticks_to_a_replica(
    gateway: RunningGateway, one: Backend, two: Backend, method: str
) -> None:
    gateway.give(route("m", one, two, protocol="kserve", replicas_max=2))

    def replica_of(number: int, **metadata: str) -> str:
        if method == "ModelInfer":
            _, rpc = gateway.unary(KSERVE + method).with_call(
                in_sequence(number), metadata=tuple(metadata.items()), timeout=60
            )
            return trailers_of(rpc)["served-by"]
        stream = gateway.channel.stream_stream(KSERVE + method)(
            iter([in_sequence(number)]), metadata=tuple(metadata.items()), timeout=60
        )
        assert list(stream) == [in_sequence(number)]
        return trailers_of(stream)["served-by"]

    first = {number: replica_of(number) for number in range(1, 25)}
    assert min(list(first.values()).count(name) for name in ("one", "two")) >= 2
    for _ in range(4):
        assert {number: replica_of(number) for number in first} == first
    # What the metadata says goes before it.
    assert len({replica_of(number, session_id="s") for number in first}) == 1


def test_a_model_says_more_than_a_session(gateway: RunningGateway, one: Backend, two: Backend) -> None:
    gateway.give(route("m", one, two))
    served = {served_by(gateway, multiplexed_model_id="a", session_id=str(number)) for number in range(20)}
    assert len(served) == 1


def test_a_replica_that_leaves_ends_its_calls_and_gets_no_more(
    gateway: RunningGateway, one: Backend, two: Backend
) -> None:
    gateway.give(route("m", one))
    held = gateway.unary(HELD).future(b"kept")
    wait_until(lambda: one.seen, "the call is open")
    gateway.give(route("m", two))
    assert {served_by(gateway) for _ in range(10)} == {"two"}
    # As long as it has calls it is reported, so that its container is kept.
    assert open_calls(gateway) == {uid_of(one.address): 1, uid_of(two.address): 0}
    one.may_go_on.set()
    assert held.result(60) == b"kept"
    wait_until(lambda: open_calls(gateway) == {uid_of(two.address): 0}, "the replica is let go")


def test_a_removed_deployment_ends_its_calls(gateway: RunningGateway, one: Backend) -> None:
    gateway.give(route("m", one))
    held = gateway.unary(HELD).future(b"kept")
    wait_until(lambda: one.seen, "the call is open")
    gateway.give()
    assert open_calls(gateway) == {uid_of(one.address): 1}
    one.may_go_on.set()
    assert held.result(60) == b"kept"
    wait_until(lambda: open_calls(gateway) == {}, "the replica is let go")


def test_no_call_fails_while_replicas_are_replaced(gateway: RunningGateway, one: Backend, two: Backend) -> None:
    gateway.give(route("m", one))
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(served_by, gateway, pause="0.01") for _ in range(300)]
        for _ in range(10):
            for backend in (two, one):
                done = sum(call.done() for call in calls)
                wait_until(lambda done=done: sum(call.done() for call in calls) >= min(done + 10, 300), "calls go on")
                gateway.give(route("m", backend))
        assert {call.result(60) for call in calls} == {"one", "two"}


def test_a_replica_that_cannot_be_reached_costs_no_call(gateway: RunningGateway, one: Backend) -> None:
    gateway.give(route("m", one, "127.0.0.1:9"))
    assert {served_by(gateway) for _ in range(50)} == {"one"}
    streams = [list(gateway.stream(ECHO)(iter([b"a", b"b"]), timeout=60)) for _ in range(20)]
    assert streams == [[b"a", b"b"]] * 20


def is_served_by(gateway: RunningGateway, name: str) -> bool:
    try:
        return served_by(gateway) == name
    except grpc.RpcError:
        return False


def test_a_replica_that_comes_back_at_its_address_is_found_again(gateway: RunningGateway) -> None:
    with run_backend("first") as first:
        gateway.give(route("m", first))
        assert served_by(gateway) == "first"
        port = first.port
    assert status_of(lambda: served_by(gateway)).code() is CODE.UNAVAILABLE
    with run_backend("second", port=port):
        wait_until(lambda: is_served_by(gateway, "second"), "the other one is found")


def test_a_call_waits_for_the_first_replica(gateway: RunningGateway, one: Backend) -> None:
    gateway.give(route("m", status=DeploymentStatus.IDLE))
    waiting = [gateway.unary(ECHO).future(b"x", timeout=60) for _ in range(3)]
    stream = gateway.stream("/tensorflow.serving.PredictionService/PredictStreamed")(iter([b"s"]), timeout=60)
    load = gateway.server.table.deployments["m"].load
    wait_until(lambda: gateway.run(lambda: load(0)).queued == 4, "all four wait")
    gateway.give(route("m", one))
    assert [call.result(60) for call in waiting] == [b"x"] * 3
    assert list(stream) == [b"s"]
    assert gateway.run(lambda: load(0)).queued == 0


def reason_within(gateway: RunningGateway, seconds: float) -> tuple[grpc.StatusCode, str]:
    """What a call to `m` that has this long is told before its time is up.

    A caller that really had this deadline might be too busy to see the answer before it.
    """
    acquire = gateway.server.table.deployments["m"].acquire
    refused = asyncio.run_coroutine_threadsafe(acquire(CallClass.INFER, "", seconds), gateway.loop)
    error = refused.exception(PATIENCE_S)
    assert isinstance(error, StatusError)
    return error.code, error.details


def test_a_call_that_waits_is_told_why_before_its_deadline(gateway: RunningGateway) -> None:
    gateway.give(route("m", detail="waits for a consumer with a free GPU", status=DeploymentStatus.STARTING))
    code, reason = reason_within(gateway, 1.5)
    assert code is CODE.UNAVAILABLE
    assert re.fullmatch(
        r"No replica of 'm' became ready within \d{1,2}\.\d s: waits for a consumer with a free GPU", reason
    )


def test_a_call_waits_no_longer_than_a_start_may_take(gateway: RunningGateway) -> None:
    gateway.give(route("m", start_timeout_s=1, status=DeploymentStatus.STARTING))
    told = status_of(lambda: gateway.unary(ECHO)(b"", timeout=PATIENCE_S))
    assert told.code() is CODE.UNAVAILABLE
    # A busy machine looks at its clock a little late.
    assert "request_id" in trailers_of(told)
    assert re.fullmatch(r"No replica of 'm' became ready within \d{1,2}\.\d s", told.details())


def test_a_failing_deployment_says_why(gateway: RunningGateway) -> None:
    gateway.give(route("m", status=DeploymentStatus.FAILING, detail="exit code 1: no such file"))
    assert reason_within(gateway, 1) == (
        CODE.UNAVAILABLE,
        "The replicas of 'm' end by themselves: exit code 1: no such file",
    )


def test_who_waits_for_a_deployment_that_is_removed_is_told(gateway: RunningGateway) -> None:
    gateway.give(route("m", status=DeploymentStatus.STARTING))
    waiting = gateway.unary(ECHO).future(b"", timeout=60)
    wait_until(lambda: gateway.server.door.open_calls == 1, "the call waits")
    gateway.give()
    told = status_of(lambda: waiting.result(60))
    assert (told.code(), told.details()) == (CODE.UNAVAILABLE, "'m' was just removed.")


def test_a_cancelled_call_waits_no_more(gateway: RunningGateway) -> None:
    gateway.give(route("m", status=DeploymentStatus.STARTING))
    waiting = gateway.unary(ECHO).future(b"", timeout=60)
    load = gateway.server.table.deployments["m"].load
    wait_until(lambda: gateway.run(lambda: load(0)).queued == 1, "the call waits")
    waiting.cancel()
    wait_until(lambda: gateway.run(lambda: load(0)).queued == 0, "nobody waits")


@pytest.mark.parametrize("path", [f"{KSERVE}ModelInfer", f"{KSERVE}ModelStreamInfer", ECHO])
def test_calls_open_on_a_host_that_vanished_end_once_its_replica_left_the_table(
    gateway: RunningGateway, one: Backend, two: Backend, path: str
) -> None:
    def call(name: str) -> grpc.Call:
        metadata = (("held", "1"), ("application", name))
        return gateway.stream(path)(iter([text_field(1, name)]), metadata=metadata, timeout=60)

    with TcpProxy(f"//{one.address}", 0) as host:
        address = f"127.0.0.1:{host.port}"
        gateway.give(route("m", address), route("n", two))
        lost, kept = call("m"), call("n")
        wait_until(lambda: one.seen and two.seen, "both are with their replicas")
        host.set_mode(Mode.GONE)
        gateway.give(route("m"), route("n"))
        failed = status_of(lambda: list(lost))
        assert (failed.code(), failed.details()) == (
            CODE.UNAVAILABLE,
            f"The replica at {address} was lost: its host does not answer any more.",
        )
    # The other one left, too, and is there: it answers.
    two.may_go_on.set()
    assert list(kept) == [text_field(1, "n")]
