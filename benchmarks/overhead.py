"""What the server adds to a container: from submission to finished zip, against the same container by hand.

    .venv/bin/python -m benchmarks.overhead [--rounds 30] [--system standalone|services|compose]

The yardstick (`benchmarks.bare_run`) has every option of the server's container: create, start, wait, remove. Both use
the same image, are measured in turns in one run and compared by their medians; the client long-polls. Goals: at most
1.15 standalone, 1.20 with services, 1.25 with Compose behind TLS.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import figures
from benchmarks.bare_run import bare_runs
from tests.databases import postgres_server
from tests.e2e.client import DoorClient, door_of
from tests.e2e.compose import compose_system
from tests.e2e.images import echo_image
from tests.e2e.systems import System, services_system, standalone_system
from tests.services import DATABASE_URL
from tests.zips import make_zip

GOALS = {"standalone": 1.15, "services": 1.20, "compose": 1.25}


def main() -> None:
    """Print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--system", choices=tuple(GOALS), default="standalone")
    figures.add_option(parser)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running(arguments.system, Path(folder)) as system,
        door_of(system.url, system.verify) as door,
    ):
        bare, spine = measure(door, arguments.rounds, Path(folder))
    task = figures.compared(
        f"a task that does nothing, {arguments.system}",
        statistics.median(spine),
        "s",
        statistics.median(bare),
        goal=figures.at_most(GOALS[arguments.system], "ratio"),
    )
    print(f"system                              {arguments.system}, {arguments.rounds} rounds each, in turns")
    print(f"bare create+start+wait+remove       median {statistics.median(bare) * 1000:6.0f} ms")
    print(f"submit to zip ready                 median {statistics.median(spine) * 1000:6.0f} ms")
    print(f"ratio                               {task.ratio:.2f}   (goal: at most {GOALS[arguments.system]})")
    figures.record(arguments.json, task)


@contextmanager
def running(name: str, folder: Path, *, gpu_uuid: str | None = None) -> Iterator[System]:
    """Run the system to measure while the block is open; `services` gets its own database."""
    if name != "services":
        with (compose_system if name == "compose" else standalone_system)(folder, gpu_uuid=gpu_uuid) as system:
            yield system
        return
    with postgres_server(DATABASE_URL) as postgres:
        name = postgres.create()
        with services_system(folder, postgres.url_of(name, durable=True), gpu_uuid=gpu_uuid) as system:
            yield system
        postgres.drop(name)


def measure(door: DoorClient, rounds: int, folder: Path) -> tuple[list[float], list[float]]:
    """Measure the seconds of each bare run and of each task."""
    image = echo_image()
    model, data = door.add_model(image), make_zip({"a.txt": b"1"})
    bare: list[float] = []
    spine: list[float] = []
    with bare_runs(image, folder / "bare-runs") as runs:
        for turn in range(rounds + 2):
            seconds = (runs.run(), _run_task(door, model, data))
            # The first turns warm caches on both sides.
            if turn >= 2:
                bare.append(seconds[0])
                spine.append(seconds[1])
    return bare, spine


def _run_task(door: DoorClient, model: str, data: bytes) -> float:
    began = time.perf_counter()
    uid = door.submit_zip(model, data)
    answer = door.ended(uid)
    assert answer.status_code == 200, answer.text
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
