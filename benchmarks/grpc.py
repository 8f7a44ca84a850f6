"""What the gRPC door costs: the full lane and the express lane against the bare container and Ray Serve's proxy.

    .venv/bin/python -m benchmarks.grpc [--rounds 5] [--seconds 2] [--ray-python .venv-ray/bin/python]

The stack is that of docker-compose.yaml behind Traefik's TLS, called at Traefik's own address as clients on other
machines reach it, not through the proxy process that Docker uses for published ports on its own machine. The yardstick
is the same container, started by hand without a guard, called directly and in plain text. Calls are unary, or messages
of eight open streams that wait for each one's echo. All lanes are measured in turns; each ratio is the median of the
rounds' ratios. To set up Ray's environment:

    python3 -m venv .venv-ray && .venv-ray/bin/pip install 'ray[serve]==2.60.0' grpcio-tools

Goals: the full lane at least 0.34 of direct at 32 calls of 1 KB and 4 times Ray, 0.40 at one call of 1 KB, at one of
1 MB and with streams; express at least 0.6 of direct at 32 calls; at most 1.3 times the CPU per call of a relay that
does nothing else (`bare_relay`); under load, a health check of the control process takes at most 1.3 times as long as
one of an idle server, 99th percentile. The process that checks health stands for another machine, where it would not
wait for a CPU: it runs with real-time priority, which needs root; the output says if it had to run without. The load
next to it comes from a container, and so does the idle server: it shows the best that the machine allows.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import figures
from benchmarks.bare_relay import HEALTH
from benchmarks.figures import Figure
from benchmarks.grpc_lanes import (
    ECHO_PORT,
    USER_METHOD,
    BareRelay,
    Lane,
    echo_by_hand,
    in_container,
    ray_lane,
    run_load,
    start_load,
)
from tests.e2e.client import DoorClient, door_of
from tests.e2e.compose import compose_system
from tests.e2e.images import call_server_image
from tests.e2e.systems import System
from tests.engine_client import engine_client
from tests.waiting import wait_until

METHOD = "/inference.GRPCInferenceService/ModelInfer"
"""Routed by the model's name inside its message."""
_START_S = 2
"""How long a container takes to start calling; longer than the health checks take to begin."""
KIB = 1000
MIB = 1000 * 1000
GOALS = {(1, KIB): 0.40, (32, KIB): 0.34, (1, MIB): 0.40}
"""How much of the direct lane's rate the full one wants, by calls at once and bytes."""
GOAL_OF_STREAMS = 0.40
_STREAMS = 8


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--ray-python", type=Path, help="an interpreter with ray[serve]; without it, Ray is skipped")
    figures.add_option(parser)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        system = stack.enter_context(compose_system(folder))
        door = stack.enter_context(door_of(system.url, system.verify))
        direct = stack.enter_context(echo_by_hand())
        lanes, health = deploy_echo(system, door, direct)
        bare = stack.enter_context(BareRelay.running(lanes[0]))
        lanes.append(bare.lane)
        if arguments.ray_python:
            lanes.append(stack.enter_context(ray_lane(arguments.ray_python)))
        for load in GOALS:
            found = compare(lanes, bare, load, rounds=arguments.rounds, seconds=arguments.seconds)
            figures.record(arguments.json, *found)
        figures.record(arguments.json, compare_streams(lanes, arguments.rounds, arguments.seconds))
        ways = [bare.health, control_process(), health]
        figures.record(arguments.json, *measure_health(lanes[1], ways, arguments.rounds, arguments.seconds))


def deploy_echo(system: System, door: DoorClient, direct: str) -> tuple[list[Lane], Lane]:
    """Deploy the echo; returns its lanes (direct, full, full with an unknown method, express) and the health lane."""
    model = door.add_model(call_server_image())
    serving = {"port": ECHO_PORT, "protocol": "grpc", "replicas_min": 1, "express": True}
    answer = door.http.post(f"/api/models/{model}/deployment", json=serving)
    assert answer.status_code == 200, answer.text
    wait_until(lambda: show(door, model)["status"] == "ready", lambda: str(show(door, model)))
    tls = ("--target", f"{address_of('traefik')}:443", "--certificate", str(system.verify))
    method = ("--method", METHOD, "--model", model)
    own = ("--method", USER_METHOD, "--metadata", f"application={model}")
    lanes = [
        Lane("direct", ("--target", direct, *method)),
        Lane("full", (*tls, "--sni", "grpc.localhost", *method)),
        Lane("unknown", (*tls, "--sni", "grpc.localhost", *own)),
        Lane("express", (*tls, "--sni", f"{model}.grpc.localhost", *method)),
    ]
    return lanes, Lane("through TLS", (*tls, "--sni", "localhost", "--method", HEALTH, "--bytes", "0"))


def show(door: DoorClient, model: str) -> dict[str, Any]:
    """The deployment as the API shows it."""
    view: dict[str, Any] = door.http.get(f"/api/models/{model}/deployment").json()
    return view


def compare(lanes: list[Lane], bare: BareRelay, load: tuple[int, int], *, rounds: int, seconds: float) -> list[Figure]:
    """Measure each lane with so many calls of so many bytes, in turns."""
    concurrency, size = load
    meters = {"full": gateway_cpu_us, bare.lane.name: bare.cpu_us}
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
        say(lane, results)
    full, least = spent["full"], spent[bare.lane.name]
    more = statistics.median(one / other for one, other in zip(full, least, strict=True))
    print(
        f"  CPU per call: gateway {statistics.median(full):.0f} us, bare relay {statistics.median(least):.0f} us, "
        f"ratio {more:.2f}",
        flush=True,
    )
    calls = f"{concurrency} x {size // KIB} KB"
    found = [rated(f"full lane, {calls}", results, "full", "direct", GOALS[load])]
    if concurrency > 1:
        found.append(rated(f"express lane, {calls}", results, "express", "direct", 0.6))
        found += [rated(f"full lane, {calls}, to Ray", results, "full", "ray", 4)] if "ray" in results else []
        cpu_us = statistics.median(full), statistics.median(least)
        goal = figures.at_most(1.3, "ratio")
        found.append(Figure(f"CPU of a call, {calls}, to the bare relay", cpu_us[0], "us", cpu_us[1], more, goal))
    return found


def compare_streams(lanes: list[Lane], rounds: int, seconds: float) -> Figure:
    """Measure the direct and the full lane with open streams of 1 KB, in turns."""
    direct, full = lanes[0].arguments, lanes[1].arguments
    model = direct[direct.index("--model") + 1]
    chat = ("--method", "/calls.Echo/Chat", "--metadata", f"application={model}", "--stream")
    ways = [Lane("direct", (*direct[: direct.index("--method")], *chat))]
    ways.append(Lane("full", (*full[: full.index("--method")], *chat)))
    results: dict[str, list[dict[str, float]]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            results[way.name].append(run_load(way, _STREAMS, KIB, seconds))
    print(f"\n{_STREAMS} streams, 1 KB, {rounds} rounds of {seconds} s")
    for way in ways:
        say(way, results)
    return rated(f"full lane, {_STREAMS} streams of 1 KB", results, "full", "direct", GOAL_OF_STREAMS)


def say(lane: Lane, results: dict[str, list[dict[str, float]]]) -> None:
    """Print one lane's medians."""
    rows = results[lane.name]
    print(
        f"  {lane.name:8} median {statistics.median(row['rate'] for row in rows):7.0f}/s"
        f"  p50 {statistics.median(row['p50_ms'] for row in rows):7.2f} ms"
        f"  p99 {statistics.median(row['p99_ms'] for row in rows):7.2f} ms"
        f"  of direct {ratio(rows, results['direct']):.2f}"
        + (f"  of ray {ratio(rows, results['ray']):.2f}" if "ray" in results else "")
    )


def rated(name: str, results: dict[str, list[dict[str, float]]], lane: str, yardstick: str, least: float) -> Figure:
    """The rate of one lane against that of another."""
    rate, other = (statistics.median(row["rate"] for row in results[which]) for which in (lane, yardstick))
    return Figure(name, rate, "/s", other, ratio(results[lane], results[yardstick]), figures.at_least(least, "ratio"))


def ratio(rows: list[dict[str, float]], yardstick: list[dict[str, float]]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(row["rate"] / other["rate"] for row, other in zip(rows, yardstick, strict=True))


def measure_health(full: Lane, ways: list[Lane], rounds: int, seconds: float) -> list[Figure]:
    """Check health every hundredth of a second, by each way in turn, while the full lane is saturated.

    The yardstick of the control process is the first of the ways.
    """
    found = []
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
        idle_ms, control_ms = (statistics.median(row["p99_ms"] for row in results[way.name]) for way in ways[:2])
        name, goal = f"health under calls of {size // KIB} KB, p99", figures.at_most(1.3, "ratio")
        found.append(figures.compared(name, control_ms, "ms", idle_ms, goal=goal))
    return found


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


def gateway_cpu_us() -> float:
    """CPU time that all gateways on this Engine have used so far, in microseconds."""
    client = engine_client()
    try:
        filters = {"label": "com.docker.compose.service=grpc-gateway"}
        usage = [client.stats(row["Id"], stream=False, one_shot=True) for row in client.containers(filters=filters)]
        return sum(row["cpu_stats"]["cpu_usage"]["total_usage"] / 1000 for row in usage)
    finally:
        client.close()


if __name__ == "__main__":
    main()
