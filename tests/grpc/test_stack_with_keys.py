"""The same stack once keys are required. The last of its tests: it stays so."""

import queue

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.grpc import lines
from tests.grpc.stack import HOSTS, SOON_S, Stack, check_composition, follow

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
CLIENTS = {
    **{name: lines.USER_SERVICE[name] for name in ("ray_call.py", "ray_streaming.py")},
    **{name: lines.KSERVE[name] for name in ("kserve_infer.py", "kserve_control.py", "kserve_stream.py")},
    **{name: lines.TENSORFLOW[name] for name in ("tensorflow_predict.py",)},
    **lines.GATEWAY,
}
WANTED = "this server wants a key"


@pytest.fixture(scope="module")
def told(stack: Stack) -> list[int]:
    """What a watch of the gateway's health reported while both doors were started again."""
    statuses: queue.Queue[int] = queue.Queue()
    with stack.grpc.channel() as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        follower = follow(watch, statuses)
        first = statuses.get(timeout=SOON_S)
        for name in ("public-api", "grpc-gateway"):
            stack.service(name).change({"REQUIRE_API_KEY": "1"})
        watch.cancel()
        follower.join(SOON_S)
    stack.grpc.system.wait_ready()
    stack.grpc.door.http.headers["X-API-Key"] = stack.key
    return [first, *statuses.queue]


def test_a_watch_tells_that_the_gateway_goes(told: list[int]) -> None:
    assert told == [SERVING, NOT_SERVING]


@HOSTS
@pytest.mark.parametrize(("script", "expected"), CLIENTS.items())
def test_a_client_with_a_key_works(stack: Stack, told: list[int], host: str, script: str, expected: list[str]) -> None:
    assert stack.run(script, host, {"GRPC_API_KEY": stack.key}) == expected


@HOSTS
def test_a_replica_calls_another_deployment_with_the_token_that_it_was_given(
    stack: Stack, told: list[int], host: str
) -> None:
    check_composition(stack.run("ray_composition.py", host, {"GRPC_API_KEY": stack.key}))


def test_a_password_opens_streams(stack: Stack, told: list[int]) -> None:
    assert stack.stream() == lines.REDHARE["redhare_stream.py"]


def test_a_caller_without_a_key_is_told_so_and_may_ask_for_health(
    stack: Stack, told: list[int], channel: grpc.Channel
) -> None:
    for path in ("/userdefinedprotos.UserDefinedService/__call__", "/inference.GRPCInferenceService/ModelInfer"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(path)(b"", timeout=SOON_S)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert WANTED in caught.value.details()
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SOON_S)
    assert health.status == SERVING
    answer = stack.grpc.door.http.get("/api/deployments/", headers={"X-API-Key": ""})
    assert answer.status_code == 401
