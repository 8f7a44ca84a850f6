"""What it costs that the front counts connections: calls through port 443, against calls to the entry point behind it.

    .venv/bin/python -m benchmarks.front [--rounds 5] [--seconds 3]

The load runs in Traefik's own network namespace, from where both are reached. Both are measured in turns; each ratio
is the median of the rounds' ratios. Traefik's CPU per call tells more than the rate where others share the machine.
Goal: at least 0.90 of the rate of small calls.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import figures
from benchmarks.grpc import KIB, METHOD, MIB
from tests.e2e.client import door_of
from tests.e2e.compose import IMAGE, compose_system, service_of
from tests.e2e.grpc_door import GrpcDoor
from tests.e2e.images import call_server_image
from tests.e2e.systems import System
from tests.engine_client import engine_client

GOAL = 0.9
BEHIND, COUNTED = "127.0.0.1:8443", "127.0.0.1:443"


@dataclass(frozen=True)
class Load:
    """Calls of one kind."""

    name: str
    module: str
    arguments: tuple[str, ...]


def main() -> None:
    """Print both rates, both CPU times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    figures.add_option(parser)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        system = stack.enter_context(compose_system(folder))
        door = stack.enter_context(door_of(system.url, system.verify))
        model = GrpcDoor(door, system).deploy(call_server_image())
        for load in loads(model):
            figures.record(arguments.json, compare(system, load, arguments.rounds, arguments.seconds))


def loads(model: str) -> list[Load]:
    """Small calls by each way in, many and one at a time, and large ones."""
    grpc = ("--method", METHOD, "--model", model)
    by_name, by_path = (*grpc, "--sni", "grpc.localhost"), (*grpc, "--sni", "localhost")

    def many(count: int, size: int) -> tuple[str, ...]:
        return ("--concurrency", str(count), "--bytes", str(size))

    return [
        Load("gRPC by name, 32 of 1 KB", "grpc_load", (*by_name, *many(32, KIB))),
        Load("gRPC by name, 1 of 1 KB", "grpc_load", (*by_name, *many(1, KIB))),
        Load("gRPC by path, 32 of 1 KB", "grpc_load", (*by_path, *many(32, KIB))),
        Load("gRPC by name, 1 of 1 MB", "grpc_load", (*by_name, *many(1, MIB))),
        Load("HTTP, 16 of /healthz", "http_load", ("--concurrency", "16")),
        Load("HTTP, 1 of /healthz", "http_load", ("--concurrency", "1")),
    ]


def compare(system: System, load: Load, rounds: int, seconds: float) -> figures.Figure:
    """Measure both ways in turns; returns the rate of the counted one."""
    rows: dict[str, list[tuple[float, float]]] = {BEHIND: [], COUNTED: []}
    for number in range(rounds):
        # Whoever comes first may find a warmer or a busier machine.
        for target in sorted(rows, reverse=bool(number % 2)):
            rows[target].append(run(system, load, target, seconds))
    print(f"\n{load.name}, {rounds} rounds of {seconds} s")
    for target, name in ((BEHIND, "behind"), (COUNTED, "counted")):
        rate, cpu = (statistics.median(row[index] for row in rows[target]) for index in (0, 1))
        print(f"  {name:8} median {rate:7.0f}/s  CPU of Traefik {cpu:6.0f} us per call")
    rate, cpu = (
        statistics.median(one[index] / other[index] for one, other in zip(rows[COUNTED], rows[BEHIND], strict=True))
        for index in (0, 1)
    )
    print(f"  ratio    {rate:.2f} of the rate, {cpu:.2f} of the CPU", flush=True)
    counted, behind = (statistics.median(row[0] for row in rows[target]) for target in (COUNTED, BEHIND))
    return figures.Figure(load.name, counted, "/s", behind, rate, figures.at_least(GOAL, "ratio"))


def run(system: System, load: Load, target: str, seconds: float) -> tuple[float, float]:
    """Calls per second, and the microseconds of CPU that Traefik took for each."""
    traefik, folder = service_of(system, "traefik").container, Path(__file__).parent
    command = ["docker", "run", "--rm", "--network", f"container:{traefik}", "--workdir", "/opt"]
    command += ["--volume", f"{folder}:/opt/benchmarks:ro", "--volume", f"{system.verify}:/server.crt:ro", IMAGE]
    command += ["python", "-m", f"benchmarks.{load.module}", "--target", target, "--certificate", "/server.crt"]
    command += [*load.arguments, "--seconds", str(seconds)]
    before = cpu_us(traefik)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spent, result = cpu_us(traefik) - before, json.loads(done.stdout)
    return result["rate"], spent / result["calls"]


def cpu_us(container: str) -> float:
    """CPU time that it has used so far, in microseconds."""
    client = engine_client()
    try:
        usage = client.stats(container, stream=False, one_shot=True)
        return float(usage["cpu_stats"]["cpu_usage"]["total_usage"]) / 1000
    finally:
        client.close()


if __name__ == "__main__":
    main()
