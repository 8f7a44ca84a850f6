"""`make soak MINUTES=20`: runs tasks without a fault; measures whether a service's memory grows, and what is left.

A service leaks if its memory grows by more than `GROWTH` a minute once it has warmed up: over a day that is a gigabyte.
"""

import argparse
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from sqlalchemy import create_engine, text

from tests.chaos.__main__ import stack_of_containers, wait_for_nothing
from tests.chaos.stack import Stack
from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import script_image
from tests.e2e.processes import Process

MIB = 1024**2
GROWTH = 0.7 * MIB
EVERY_S = 5.0
WARM = 4
"""The first part of the samples that is left out: one in so many."""


def main() -> int:
    """Returns 1 if a service leaks, a task went wrong, or something is left."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    arguments = parser.parse_args()
    # Whoever ends it this way wants no containers left either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        stack_of_containers(Path(folder), None) as (stack, url, _),
        door_of(stack.system.url) as door,
    ):
        samples, faults = soak(stack, door, arguments.minutes * 60)
        left = wait_for_nothing(stack)
        with create_engine(url).connect() as connection:
            finished, attempts = connection.execute(
                text("SELECT count(*) FILTER (WHERE status = 'finished'), sum(attempts) FROM tasks")
            ).one()
    slopes = {name: slope(found) for name, found in samples.items()}
    print(f"{finished} tasks finished in {attempts} attempts; {faults} went wrong; {len(left)} left")
    print(f"{'service':16} {'MiB':>6} {'MiB a minute':>13}")
    for name, found in samples.items():
        print(f"{name:16} {found[-1][1] / MIB:6.0f} {slopes[name] / MIB:13.2f}")
    return int(bool(faults or left) or any(each > GROWTH for each in slopes.values()))


def soak(stack: Stack, door: DoorClient, seconds: float) -> tuple[dict[str, list[tuple[float, int]]], int]:
    """Submit one task after the other. Returns the memory of each service by minute, and how many tasks went wrong."""
    model = door.add_model(script_image("cat /input/number > /output/number"))
    samples: dict[str, list[tuple[float, int]]] = defaultdict(list)
    begun = sampled = time.monotonic()
    wrong = 0
    while (now := time.monotonic()) < begun + seconds:
        number = secrets.token_hex(8).encode()
        uids = [door.submit(model, {"number": number}) for _ in range(2)]
        wrong += sum(door.result(uid) != {"number": number} for uid in uids)
        if now >= sampled:
            sampled = now + EVERY_S
            for process in stack.processes:
                samples[process.name].append(((now - begun) / 60, memory(process)))
    return samples, wrong


def memory(process: Process) -> int:
    """The resident memory of a process, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def slope(samples: list[tuple[float, int]]) -> float:
    """How fast memory grows once the service has warmed up, in bytes a minute."""
    warm = samples[len(samples) // WARM :]
    if len(warm) < 2:
        return 0.0
    return statistics.linear_regression([minute for minute, _ in warm], [size for _, size in warm]).slope


if __name__ == "__main__":
    sys.exit(main())
