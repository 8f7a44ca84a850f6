"""A gateway as processes: a shared port, one gateway on it, restarts, and a drain that loses no call."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from grpc_gateway.options import GatewayOptions
from grpc_gateway.ports import PortTaken
from grpc_gateway.service import run_gateway
from kit.protobuf import text_field
from tests.e2e.systems import free_port
from tests.integration.grpc_backend import Backend, run_backend
from tests.integration.grpc_harness import (
    CLIENT_OPTIONS,
    TOKEN,
    UNREACHABLE,
    RunningGateway,
    route,
    run_harness_gateway,
    status_of,
    trailers_of,
)
from tests.waiting import check_for, wait_until

CODE = grpc.StatusCode
HELD = "/user.Own/Held"
LIVE = "/inference.GRPCInferenceService/ServerLive"


@contextmanager
def run_processes(port: int, control_port: int, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m grpc_gateway` in a process group of its own."""
    environment = {
        "PATH": os.environ["PATH"],
        "SERVICE_TOKEN": TOKEN,
        "PRIVATE_API_URL": UNREACHABLE,
        "GRPC_HOST": "127.0.0.1",
        "GRPC_PORT": str(port),
        "GRPC_CONTROL_PORT": str(control_port),
        "GRPC_REPLICA_PORT": str(free_port()),
        "GRPC_WORKERS": "2",
        "GRPC_DRAIN": "1s",
        **variables,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "grpc_gateway"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def is_live(port: int) -> bool:
    """Whether a new connection is answered."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=CLIENT_OPTIONS) as channel:
        try:
            return bool(channel.unary_unary(LIVE)(b"", timeout=2))
        except grpc.RpcError:
            return False


def children_of(pid: int) -> set[int]:
    """Its workers; the resource tracker of multiprocessing is none."""
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if folder.name.isdigit() and int(stat[1]) == pid and b"spawn_main" in command:
            found.add(int(folder.name))
    return found


def test_processes_share_a_port_and_nobody_else_gets_in(tmp_path: Path) -> None:
    port, control_port = free_port(), free_port()
    alive = tmp_path / "alive"
    with run_processes(port, control_port, ALIVE_FILE=str(alive)) as first:
        wait_until(lambda: is_live(port) and is_live(control_port), "both ports answer")
        wait_until(alive.exists, "the gateway says that it is alive")
        workers = children_of(first.pid)
        # Two that relay, behind the one for control calls, which has the priority that it was started with.
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert sorted(os.getpriority(os.PRIO_PROCESS, pid) for pid in workers) == [own, 19, 19]
        with run_processes(port, free_port()) as second:
            assert second.wait(60) == 3
            assert second.stdout is not None
            said = second.stdout.read()
            assert f"a gateway already runs on port {port}; stop it first, or set GRPC_PORT" in said
        # A server that does not know of the lock does not get in, either.
        with pytest.raises(OSError, match="in use"), closing(socket.socket()) as other:
            other.bind(("127.0.0.1", port))
        # A worker that dies is replaced.
        os.kill(next(iter(workers)), signal.SIGKILL)
        wait_until(lambda: len(children_of(first.pid) - workers) == 1, "a successor")
        wait_until(lambda: is_live(port) and is_live(control_port), "both ports answer")
        first.terminate()
        assert first.wait(60) == 0
    assert not is_live(port)


def test_the_process_for_control_calls_takes_no_large_messages() -> None:
    port, control_port = free_port(), free_port()
    with run_processes(port, control_port) as process:
        wait_until(lambda: is_live(port) and is_live(control_port), "both ports answer")
        with grpc.insecure_channel(f"127.0.0.1:{control_port}") as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(LIVE)(bytes(5 * 1024**2), timeout=60)
        assert refused.value.code() is CODE.RESOURCE_EXHAUSTED
        process.terminate()
        assert process.wait(60) == 0


def test_the_port_for_replicas_answers_as_the_others_do() -> None:
    port, replica_port = free_port(), free_port()
    with run_processes(port, free_port(), GRPC_REPLICA_PORT=str(replica_port)) as process:
        wait_until(lambda: is_live(port) and is_live(replica_port), "both ports answer")
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_port_that_somebody_else_has_is_told(is_shared: bool) -> None:
    # One that would be shared is what another gRPC server leaves behind: both would get a part of the connections.
    with closing(socket.create_server(("127.0.0.1", 0), reuse_port=is_shared)) as listener:
        port = listener.getsockname()[1]
        with run_processes(port, free_port()) as process:
            assert process.wait(60) == 3
            assert process.stdout is not None
            assert f"127.0.0.1:{port} cannot be had: Address already in use" in process.stdout.read()


def test_faulty_settings_are_told_together() -> None:
    with run_processes(0, 9001, SERVICE_TOKEN="short") as process:
        assert process.wait(60) == 2
        assert process.stdout is not None
        said = process.stdout.read()
        assert "grpc-gateway cannot start:" in said
        assert "SERVICE_TOKEN" in said
        assert "GRPC_PORT" in said


def test_workers_do_not_outlive_their_supervisor() -> None:
    port = free_port()
    with run_processes(port, free_port()) as process:
        wait_until(lambda: is_live(port), "the port answers")
        workers = children_of(process.pid)
        process.kill()
        process.wait(60)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the workers are gone")


def test_a_gateway_in_a_thread_serves_and_drains() -> None:
    options = GatewayOptions(private_url=UNREACHABLE, service_token=TOKEN, name="thread", drain_s=0.5)
    with run_gateway(options) as port:
        assert is_live(port)
        # The port is not shared unless that is asked for.
        taken = GatewayOptions(private_url=UNREACHABLE, service_token=TOKEN, name="other", port=port)
        with pytest.raises(PortTaken, match=f"127.0.0.1:{port} cannot be had"), run_gateway(taken):
            pass
    assert not is_live(port)


@pytest.fixture
def backend() -> Iterator[Backend]:
    with run_backend() as backend:
        yield backend


def test_a_drain_says_so_first_and_lets_calls_end(backend: Backend) -> None:
    with ExitStack() as stack:
        gateway: RunningGateway = stack.enter_context(run_harness_gateway(drain_s=60.0))
        gateway.give(route("m", backend))
        health = health_pb2_grpc.HealthStub(gateway.channel)
        told: queue.Queue[int] = queue.Queue()
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        thread = threading.Thread(target=_follow, args=(watch, told), daemon=True)
        thread.start()
        assert told.get(timeout=60) == health_pb2.HealthCheckResponse.SERVING
        unary = gateway.unary(HELD).future(b"kept", timeout=60)
        stream = gateway.stream("/user.Own/HeldStream")(iter([]), timeout=60)
        assert next(stream) == b"open"
        wait_until(lambda: len(backend.seen) == 2, "both calls are open")
        stopping = threading.Thread(target=stack.close)
        stopping.start()
        assert told.get(timeout=60) == health_pb2.HealthCheckResponse.NOT_SERVING
        # New calls are served while health checks say that it stops.
        assert gateway.unary("/user.Own/Echo")(b"x", timeout=60) == b"x"
        wait_until(lambda: not is_live(gateway.port), "no new connection is taken")
        # An open watch does not make it last.
        backend.may_go_on.set()
        assert unary.result(60) == b"kept"
        assert list(stream) == []
        stopping.join(60)
        assert not stopping.is_alive()
        thread.join(60)


def test_what_is_open_at_the_end_of_a_drain_is_told(backend: Backend) -> None:
    with ExitStack() as stack:
        gateway: RunningGateway = stack.enter_context(run_harness_gateway(drain_s=1.5))
        gateway.give(route("m", backend))
        unary = gateway.unary(HELD).future(b"kept", timeout=60)
        stream = gateway.stream("/user.Own/HeldStream")(iter([]), timeout=60)
        assert next(stream) == b"open"
        wait_until(lambda: len(backend.seen) == 2, "both calls are open")
        stopping = threading.Thread(target=stack.close)
        stopping.start()
        for cut in (status_of(lambda: unary.result(60)), status_of(lambda: next(stream))):
            assert (cut.code(), cut.details()) == (
                CODE.UNAVAILABLE,
                "The gateway stops now. Call again: another one answers.",
            )
            assert "request_id" in trailers_of(cut)
        wait_until(lambda: len(backend.cancelled) == 2, "the replica's calls are cancelled")
        stopping.join(60)


def test_a_client_that_pings_often_keeps_its_connection(backend: Backend) -> None:
    with run_harness_gateway() as gateway:
        gateway.give(route("m", backend))
        options = [
            ("grpc.keepalive_time_ms", 1000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.min_time_between_pings_ms", 1000),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        with grpc.insecure_channel(f"127.0.0.1:{gateway.port}", options=options) as channel:
            states: list[grpc.ChannelConnectivity] = []
            channel.unary_unary("/user.Own/Echo")(b"x", timeout=60)
            channel.subscribe(states.append)
            wait_until(lambda: states, "the state is known")
            # Eight pings: a server that minds them ends the connection with the third.
            check_for(8, lambda: states == [grpc.ChannelConnectivity.READY], "the connection is kept")
            assert channel.unary_unary("/user.Own/Echo")(text_field(1, "x"), timeout=60)


def _follow(watch: grpc.Call, told: "queue.Queue[int]") -> None:
    try:
        for answer in watch:
            told.put(answer.status)
    except grpc.RpcError:
        pass
