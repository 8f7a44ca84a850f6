"""Unary methods of users' services are known from their replicas' reflection, and only where all of them agree."""

import json

import grpc

from tests.integration.grpc_backend import run_backend
from tests.integration.grpc_harness import RunningGateway, route, status_of, trailers_of
from tests.integration.typed_service import TYPED
from tests.waiting import wait_until

CODE = grpc.StatusCode
ECHO = f"/{TYPED}/Echo"


def is_unary(gateway: RunningGateway, path: str) -> bool:
    return gateway.run(lambda: gateway.server.table.deployments["m"].method_types.is_unary(path))


def test_method_types_are_asked_for_with_the_first_call_and_known_after(gateway: RunningGateway) -> None:
    with run_backend(reflects=(TYPED,)) as backend:
        gateway.give(route("m", backend))
        assert gateway.unary(ECHO)(b"x", timeout=60) == b"x"
        wait_until(lambda: is_unary(gateway, ECHO), "the method types are known")
        assert not is_unary(gateway, f"/{TYPED}/Many")
        assert not is_unary(gateway, "/user.Own/Echo")
        # What is known to be unary passes as before, with metadata, statuses and time limits.
        answer, rpc = gateway.unary(f"/{TYPED}/Metadata").with_call(b"", metadata=(("request_id", "r"),), timeout=60)
        assert json.loads(answer)["request_id"] == trailers_of(rpc)["request_id"] == "r"
        assert [value for name, value in rpc.trailing_metadata() if name == "last"] == ["a", "b"]
        assert dict(rpc.initial_metadata())["first"] == "one"
        gateway.give(route("m", backend, call_timeout_s=0.3))
        late = status_of(lambda: gateway.unary(ECHO)(b"", metadata=(("pause", "10"),), timeout=60))
        assert (late.code(), late.details()) == (CODE.DEADLINE_EXCEEDED, "Request timed out after 0.3s.")
        wait_until(lambda: backend.cancelled == [ECHO], "the replica's call is cancelled")
        many = gateway.channel.unary_stream(f"/{TYPED}/Many")
        assert list(many(b"", metadata=(("count", "2"), ("size", "1")), timeout=60)) == [b"\x00"] * 2


def test_a_replica_that_does_not_say_makes_nothing_unary(gateway: RunningGateway) -> None:
    with run_backend(reflects=(TYPED,)) as tells, run_backend() as silent:
        gateway.give(route("m", tells))
        gateway.unary(ECHO)(b"", timeout=60)
        wait_until(lambda: is_unary(gateway, ECHO), "the method types are known")
        # The new one may be of another version, where the method streams.
        gateway.give(route("m", tells, silent))
        assert not is_unary(gateway, ECHO)
        assert gateway.unary(ECHO)(b"x", timeout=60) == b"x"
        gateway.give(route("m", tells))
        assert is_unary(gateway, ECHO)
