"""What the gRPC door costs: the full lane and the express lane against the bare container and Ray Serve's proxy.

    .venv/bin/python -m benchmarks.grpc [--rounds 5] [--seconds 2] [--ray-python .venv-ray/bin/python]

The stack is that of docker-compose.yaml behind Traefik's TLS, called at Traefik's own address as clients on other
machines reach it, not through the proxy process that Docker uses for published ports on its own machine. The yardstick
is the same container, called directly and in plain text. All lanes are measured in turns; each ratio is the median of
the rounds' ratios. To set up Ray's environment:

    python3 -m venv .venv-ray && .venv-ray/bin/pip install 'ray[serve]==2.60.0' grpcio-tools

Goals: the full lane at least 0.30 of direct at 32 calls of 1 KB and 2.5 times Ray, express at least 0.6 of direct; at
most 1.5 times the CPU per call of a relay that does nothing else (`bare_relay`); under load, 99 of 100 health checks of
the control process within 20 ms. The process that checks health stands for another machine, where it would not wait for
a CPU: it runs with real-time priority, which needs root; the output says if it had to run without. The load next to it
comes from a container. An otherwise idle server in a container, checked the same way, shows the best that the machine
allows.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bare_relay import HEALTH
from tests.e2e.client import DoorClient, door_of
from tests.e2e.compose import IMAGE, compose_system
from tests.e2e.images import call_server_image
from tests.e2e.systems import System, free_port
from tests.engine_client import engine_client
from tests.waiting import wait_until

METHOD = "/inference.GRPCInferenceService/ModelInfer"
"""Routed by the model's name inside its message."""
USER_METHOD = "/calls.Echo/Call"
"""A user's own method, unknown to the gateway: it passes as a stream."""
_START_S = 2
"""How long a container takes to start calling; longer than the health checks take to begin."""
KIB = 1000
MIB = 1000 * 1000


@dataclass(frozen=True)
class Lane:
    """One way to the same echo."""

    name: str
    arguments: tuple[str, ...]


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--ray-python", type=Path, help="an interpreter with ray[serve]; without it, Ray is skipped")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        system = stack.enter_context(compose_system(folder))
        door = stack.enter_context(door_of(system.url, system.verify))
        lanes, health = deploy_echo(system, door)
        bare = stack.enter_context(BareRelay.running(lanes[0]))
        lanes.append(bare.lane)
        if arguments.ray_python:
            lanes.append(stack.enter_context(ray_lane(arguments.ray_python)))
        compare(lanes, bare, arguments.rounds, arguments.seconds)
        ways = [bare.health, control_process(), health]
        measure_health(lanes[1], ways, arguments.rounds, arguments.seconds)


def deploy_echo(system: System, door: DoorClient) -> tuple[list[Lane], Lane]:
    """Deploy the echo; returns its lanes (direct, full, full with an unknown method, express) and the health lane."""
    model = door.add_model(call_server_image())
    serving = {"port": 9000, "protocol": "grpc", "replicas_min": 1, "express": True}
    answer = door.http.post(f"/api/models/{model}/deployment", json=serving)
    assert answer.status_code == 200, answer.text
    wait_until(lambda: show(door, model)["status"] == "ready", lambda: str(show(door, model)))
    (replica,) = (row for row in show(door, model)["replicas"] if row["status"] == "ready")
    tls = ("--target", f"{address_of('traefik')}:443", "--certificate", str(system.verify))
    method = ("--method", METHOD, "--model", model)
    own = ("--method", USER_METHOD, "--metadata", f"application={model}")
    lanes = [
        Lane("direct", ("--target", replica["address"], *method)),
        Lane("full", (*tls, "--sni", "grpc.localhost", *method)),
        Lane("unknown", (*tls, "--sni", "grpc.localhost", *own)),
        Lane("express", (*tls, "--sni", f"{model}.grpc.localhost", *method)),
    ]
    return lanes, Lane("through TLS", (*tls, "--sni", "localhost", "--method", HEALTH, "--bytes", "0"))


def show(door: DoorClient, model: str) -> dict[str, Any]:
    """The deployment as the API shows it."""
    view: dict[str, Any] = door.http.get(f"/api/models/{model}/deployment").json()
    return view


def compare(lanes: list[Lane], bare: "BareRelay", rounds: int, seconds: float) -> None:
    """Measure each lane at 1 and 32 calls of 1 KB, and at 1 call of 1 MB, in turns."""
    meters = {"full": gateway_cpu_us, bare.lane.name: bare.cpu_us}
    for concurrency, size in ((1, KIB), (32, KIB), (1, MIB)):
        results: dict[str, list[dict[str, float]]] = {lane.name: [] for lane in lanes}
        spent: dict[str, list[float]] = {name: [] for name in meters}
        for _ in range(rounds):
            for lane in lanes:
                meter = meters.get(lane.name)
                before = meter() if meter else 0
                result = run_load(lane, concurrency, size, seconds)
                if meter:
                    spent[lane.name].append((meter() - before) / result["calls"])
                results[lane.name].append(result)
        print(f"\n{concurrency} at once, {size / KIB:.0f} KB, {rounds} rounds of {seconds} s")
        for lane in lanes:
            rows = results[lane.name]
            print(
                f"  {lane.name:8} median {statistics.median(row['rate'] for row in rows):7.0f}/s"
                f"  p50 {statistics.median(row['p50_ms'] for row in rows):7.2f} ms"
                f"  p99 {statistics.median(row['p99_ms'] for row in rows):7.2f} ms"
                f"  of direct {ratio(rows, results['direct']):.2f}"
                + (f"  of ray {ratio(rows, results['ray']):.2f}" if "ray" in results else "")
            )
        full, least = spent["full"], spent[bare.lane.name]
        more = statistics.median(one / other for one, other in zip(full, least, strict=True))
        print(
            f"  CPU per call: gateway {statistics.median(full):.0f} us, bare relay {statistics.median(least):.0f} us, "
            f"ratio {more:.2f}"
        )


def ratio(rows: list[dict[str, float]], yardstick: list[dict[str, float]]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(row["rate"] / other["rate"] for row, other in zip(rows, yardstick, strict=True))


def measure_health(full: Lane, ways: list[Lane], rounds: int, seconds: float) -> None:
    """Check health every hundredth of a second, by each way in turn, while the full lane is saturated."""
    for size in (KIB, MIB):
        results: dict[str, list[dict[str, float]]] = {way.name: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                with busy(full, size, seconds * 5):
                    results[way.name].append(run_load(way, 1, 0, seconds * 5, "--pause", "0.01", "--real-time"))
        print(f"\nHealth during 32 calls of {size / KIB:.0f} KB, {rounds} rounds of {seconds * 5} s")
        for name, rows in results.items():
            slowest = sorted(row["p99_ms"] for row in rows)
            print(
                f"  {name:11} median p50 {statistics.median(row['p50_ms'] for row in rows):5.1f} ms"
                f"  p99 {statistics.median(slowest):5.1f} ms ({slowest[0]:.1f} to {slowest[-1]:.1f})"
                + ("" if all(row["real_time"] for row in rows) else "  (without real-time priority)")
            )


@contextmanager
def busy(lane: Lane, size: int, seconds: float) -> Iterator[None]:
    """Keep 32 calls in flight while the block runs, which takes `seconds`.

    They come from a container: outside one, each thread gets as much CPU as all containers together.
    """
    certificate = lane.arguments[lane.arguments.index("--certificate") + 1]
    runner = in_container("--volume", f"{certificate}:{certificate}:ro")
    load = start_load(lane, 32, size, seconds + 2 * _START_S, runner=runner)
    try:
        time.sleep(_START_S)
        yield
    finally:
        load.communicate()
    assert load.returncode == 0, f"{lane.name}: the load failed"


def in_container(*options: str) -> list[str]:
    """The start of a command that runs a module of this folder in a container, on the host's network."""
    folder = Path(__file__).parent
    command = ["docker", "run", "--rm", "--network", "host", "--volume", f"{folder}:/opt/benchmarks:ro", *options]
    return [*command, "--workdir", "/opt", IMAGE, "python", "-m"]


def control_process() -> Lane:
    """The lane straight to the gateway's process for control calls, bypassing Traefik."""
    return Lane("control", ("--target", f"{address_of('grpc-gateway')}:9001", "--method", HEALTH, "--bytes", "0"))


def address_of(service: str) -> str:
    """The address of a service's container on the network that Traefik and the doors share."""
    client = engine_client()
    try:
        (row,) = client.containers(filters={"label": f"com.docker.compose.service={service}"})
        networks = client.inspect_container(row["Id"])["NetworkSettings"]["Networks"]
        address: str = next(row["IPAddress"] for name, row in networks.items() if name.endswith("_front"))
        return address
    finally:
        client.close()


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


def gateway_cpu_us() -> float:
    """CPU time that all gateways on this Engine have used so far, in microseconds."""
    client = engine_client()
    try:
        filters = {"label": "com.docker.compose.service=grpc-gateway"}
        usage = [client.stats(row["Id"], stream=False, one_shot=True) for row in client.containers(filters=filters)]
        return sum(row["cpu_stats"]["cpu_usage"]["total_usage"] / 1000 for row in usage)
    finally:
        client.close()


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


if __name__ == "__main__":
    main()
