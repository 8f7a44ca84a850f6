"""Ways to the same gRPC echo, the load that `benchmarks.grpc` sends by each, and what it is compared with."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bare_relay import HEALTH
from tests.e2e.compose import IMAGE
from tests.e2e.images import call_server_image
from tests.e2e.systems import free_port
from tests.engine_client import engine_client
from tests.services import listens
from tests.waiting import wait_until

USER_METHOD = "/calls.Echo/Call"
"""A user's own method, unknown to the gateway: it passes as a stream."""
ECHO_PORT = 9000


@dataclass(frozen=True)
class Lane:
    """One way to the same echo."""

    name: str
    arguments: tuple[str, ...]


def in_container(*options: str) -> list[str]:
    """The start of a command that runs a module of this folder in a container, on the host's network."""
    folder = Path(__file__).parent
    command = ["docker", "run", "--rm", "--network", "host", "--volume", f"{folder}:/opt/benchmarks:ro", *options]
    return [*command, "--workdir", "/opt", IMAGE, "python", "-m"]


def start_load(
    lane: Lane, concurrency: int, size: int, seconds: float, *more: str, runner: Sequence[str] = (sys.executable, "-m")
) -> subprocess.Popen[str]:
    """Start the load as a separate process; `runner` runs a module."""
    command = [*runner, "benchmarks.grpc_load", *lane.arguments, "--concurrency", str(concurrency)]
    command += [*(() if "--bytes" in lane.arguments else ("--bytes", str(size))), "--seconds", str(seconds), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run_load(lane: Lane, concurrency: int, size: int, seconds: float, *more: str) -> dict[str, float]:
    """Run the load; returns what it printed."""
    process = start_load(lane, concurrency, size, seconds, *more)
    printed, _ = process.communicate()
    assert process.returncode == 0, f"{lane.name}: the load failed"
    result: dict[str, float] = json.loads(printed)
    return result


@contextmanager
def echo_by_hand() -> Iterator[str]:
    """The address of the replica's image while the block is open, without a guard: one lets in only a door's calls."""
    with closing(engine_client()) as client:
        variables = {"PORT": str(ECHO_PORT), "MODEL_DIR": "/model"}
        name = client.create_container(call_server_image(), environment=variables)["Id"]
        try:
            client.start(name)
            address = client.inspect_container(name)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
            wait_until(lambda: listens(f"http://{address}:{ECHO_PORT}", ECHO_PORT), "the echo listens")
            yield f"{address}:{ECHO_PORT}"
        finally:
            client.remove_container(name, force=True)


@dataclass
class BareRelay:
    """The minimum that a relay costs: in a container like the gateway, in plain text, to the same replica."""

    lane: Lane
    health: Lane
    process: subprocess.Popen[str]

    @classmethod
    @contextmanager
    def running(cls, direct: Lane) -> Iterator["BareRelay"]:
        """Start one that relays to the target of `direct`, and stop it when the block ends."""
        command = [*in_container("--interactive"), "benchmarks.bare_relay", direct.arguments[1]]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin
        assert process.stdout
        try:
            target = f"127.0.0.1:{process.stdout.readline().strip()}"
            health = Lane("idle server", ("--target", target, "--method", HEALTH, "--bytes", "0"))
            yield cls(Lane("bare", ("--target", target, *direct.arguments[2:])), health, process)
        finally:
            process.stdin.close()
            process.wait(30)

    def cpu_us(self) -> float:
        """CPU time that it has used so far, in microseconds."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


@contextmanager
def ray_lane(python: Path) -> Iterator[Lane]:
    """Run Ray Serve with the same echo, on this machine and in plain text, while the block is open."""
    port = free_port()
    peer = Path(__file__).with_name("ray_peer.py")
    process = subprocess.Popen(
        [str(python), "-P", str(peer), str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    try:
        for line in process.stdout:
            if line.strip() == "ready":
                break
        yield Lane("ray", ("--target", f"127.0.0.1:{port}", "--method", USER_METHOD, "--metadata", "application=echo"))
    finally:
        process.stdin.close()
        process.wait(60)
