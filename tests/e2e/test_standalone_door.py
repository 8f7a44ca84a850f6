"""The gRPC door of a standalone server: live calls with `infer` and with grpc, keys, and where it is not there."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from inference_client.grpc_endpoint import PLAIN_PORT
from job_consumer.engines import LABEL
from standalone.server import REPLICA_NETWORK, kept_free
from tests.e2e.grpc_door import application
from tests.e2e.images import call_server_image, user_service_image
from tests.e2e.inside import (
    ASK_WITH_TOKEN,
    host_on,
    listener_on_host,
    reached_from,
    run_inside,
    unguarded,
    variables_of,
)
from tests.e2e.systems import Process, System, free_port, port_is_free, standalone_system
from tests.engine_client import engine_client
from tests.services import require_docker
from tests.waiting import wait_until

APPLICATIONS = "/ray.serve.RayServeAPIService/ListApplications"


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    require_docker()
    with standalone_system(tmp_path, grpc_port=PLAIN_PORT if port_is_free(PLAIN_PORT) else None) as running:
        yield running


def infer(system: System, *arguments: str) -> str:
    """Run the command as a user would, without any option about gRPC where the door has its usual port."""
    command = [sys.executable, "-m", "inference_client", "--server", system.url]
    command += [] if system.grpc_port == PLAIN_PORT else ["--grpc", f"http://127.0.0.1:{system.grpc_port}"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{system.logs()}"
    return done.stdout


def only_replica(system: System) -> str:
    """The container of this server's only replica."""
    with closing(engine_client()) as client:
        labels = [f"{LABEL}.consumer={system.consumer_name()}", f"{LABEL}.replica"]
        (container,) = client.containers(filters={"label": labels})
        return str(container["Id"])


def in_replica(system: System, program: str) -> str:
    """What a program prints inside this server's only replica."""
    return run_inside(only_replica(system), program)


def test_a_model_is_deployed_and_called_with_infer_and_with_grpc(system: System) -> None:
    for image, model in ((user_service_image(), "greeter"), (call_server_image(), "calls")):
        infer(system, "models", "add", image, model, "--pull-policy", "never")
        infer(system, "deploy", model, "--port", "9000", "--min", "1", "--wait")
    answer = infer(system, "call", "greeter", "__call__", '{"name": "foo", "origin": "bar", "num": 30}')
    assert json.loads(answer) == {"greeting": "Hello foo from bar", "num": "60"}
    with grpc.insecure_channel(f"127.0.0.1:{system.grpc_port}") as channel:
        call = channel.unary_unary("/calls.Echo/Call")
        response, details = call.with_call(
            b"\x00\xff", metadata=application("calls", ("request_id", "mine")), timeout=60
        )
        assert response == b"\x00\xff"
        assert ("request_id", "mine") in details.trailing_metadata()
        chat = channel.stream_stream("/calls.Echo/Chat")(
            iter([b"one", b"two"]), metadata=application("calls"), timeout=60
        )
        assert list(chat) == [b"one", b"two"]
    for model in ("greeter", "calls"):
        infer(system, "undeploy", model)


def test_a_replica_calls_the_door_with_its_token_also_after_a_restart_of_the_server(system: System) -> None:
    infer(system, "models", "add", call_server_image(), "calls", "--pull-policy", "never")
    infer(system, "deploy", "calls", "--port", "9000", "--min", "1", "--wait")
    assert in_replica(system, ASK_WITH_TOKEN) == "\n\x05calls\n"
    system.consumer.end()
    system.consumer.start()
    system.wait_ready()
    infer(system, "deploy", "calls", "--port", "9000", "--min", "1", "--wait")
    assert in_replica(system, ASK_WITH_TOKEN) == "\n\x05calls\n"
    infer(system, "undeploy", "calls")


def test_a_replica_reaches_the_door_for_it_and_nothing_else_of_this_machine(system: System) -> None:
    infer(system, "models", "add", call_server_image(), "calls", "--pull-policy", "never")
    infer(system, "deploy", "calls", "--port", "9000", "--min", "1", "--wait")
    replica, host = only_replica(system), host_on(REPLICA_NETWORK)
    address, port = variables_of(replica)["GRPC_GATEWAY"].rsplit(":", 1)
    assert address == host
    with listener_on_host() as listening, unguarded(call_server_image(), REPLICA_NETWORK) as beside:
        targets = [(host, int(port)), (host, listening)]
        assert reached_from(beside, targets) == dict.fromkeys(targets, "reached")
        assert reached_from(replica, targets) == {targets[0]: "reached", targets[1]: "refused"}
    token = ("authorization", f"Bearer {variables_of(replica)['GATEWAY_TOKEN']}")
    with grpc.insecure_channel(f"127.0.0.1:{system.grpc_port}") as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/calls.Echo/Call")(b"", metadata=(*application("calls"), token), timeout=60)
    assert "only from inside its container" in refused.value.details()
    infer(system, "undeploy", "calls")


def test_live_calls_need_a_key_where_every_call_does(tmp_path: Path) -> None:
    require_docker()
    with standalone_system(tmp_path, extra=["--require-api-key"]) as system:
        command = ["keys", "create", "--owner", "lab", "--scope", "submit", "--data-dir", str(system.data_dir)]
        made = subprocess.run(
            [sys.executable, "-m", "operations", *command], capture_output=True, text=True, check=True
        )
        with grpc.insecure_channel(f"127.0.0.1:{system.grpc_port}") as channel:
            call = channel.unary_unary(APPLICATIONS)
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=60)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            with pytest.raises(grpc.RpcError) as empty:
                call(b"", metadata=[("x-api-key", made.stdout.strip())], timeout=60)
            assert empty.value.details() == "Route table is not populated yet."


def test_a_server_whose_grpc_port_is_taken_does_not_start_and_says_what_to_do(tmp_path: Path) -> None:
    require_docker()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = Process("standalone", standalone(tmp_path, "--grpc-port", str(port)), {}, tmp_path / "log")
        server.start()
        assert server.wait(60) == 2
    assert f"cannot run: the gRPC door: 127.0.0.1:{port} cannot be had: " in server.output()
    assert "--grpc-port takes another port, --no-grpc does without" in server.output()


@pytest.mark.parametrize("options", [["--no-grpc"], ["--engine", "process"]])
def test_a_server_without_the_door_starts_where_its_port_is_taken(tmp_path: Path, options: list[str]) -> None:
    if "process" not in options:
        require_docker()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        server = Process("standalone", standalone(tmp_path, "--grpc-port", port, *options), {}, tmp_path / "log")
        server.start()
        try:
            wait_until(lambda: "InferenceServer is ready at " in server.output(), server.output)
        finally:
            server.end()
    assert "Live calls" not in server.output()
    assert server.output().count("no gRPC door: ") == ("process" in options)


def standalone(folder: Path, *options: str) -> list[str]:
    """The command of one more server."""
    command = [sys.executable, "-m", "operations", "standalone", "--data-dir", str(folder / "data")]
    return [*command, "--port", str(free_port()), *options]


def test_a_port_that_was_asked_for_is_handed_out_to_nobody_meanwhile() -> None:
    port = free_port()
    with kept_free(port, None), socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        # Whose it is already is no fault here.
        with kept_free(port):
            pass
