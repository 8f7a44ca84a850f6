"""What the server adds to a container: from submission to finished zip, against create, start, wait and remove.

    .venv/bin/python -m benchmarks.overhead [--rounds 30] [--system standalone|services]

Both use the same image, are measured in turns in one run and compared by their medians. Goal: at most 1.25.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from tests.databases import postgres_server
from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import echo_image
from tests.e2e.systems import System, services_system, standalone_system
from tests.services import DATABASE_URL
from tests.zips import make_zip

GOAL = 1.25


def main() -> None:
    """Print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--system", choices=("standalone", "services"), default="standalone")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running(arguments.system, Path(folder)) as system,
        door_of(system.url) as door,
    ):
        bare, spine = measure(door, arguments.rounds, Path(folder))
    ratio = statistics.median(spine) / statistics.median(bare)
    print(f"system                              {arguments.system}, {arguments.rounds} rounds each, in turns")
    print(f"bare create+start+wait+remove       median {statistics.median(bare) * 1000:6.0f} ms")
    print(f"submit to zip ready                 median {statistics.median(spine) * 1000:6.0f} ms")
    print(f"ratio                               {ratio:.2f}   (goal: at most {GOAL})")


@contextmanager
def running(name: str, folder: Path, *, gpu_uuid: str | None = None) -> Iterator[System]:
    """Run the system to measure while the block is open; `services` gets its own database."""
    if name == "standalone":
        with standalone_system(folder, gpu_uuid=gpu_uuid) as system:
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
    host = docker.from_env()
    bare: list[float] = []
    spine: list[float] = []
    for folder_name in ("in", "out"):
        (folder / folder_name).mkdir()
        # The image runs as another user.
        (folder / folder_name).chmod(0o777)
    (folder / "in/a.txt").write_text("1")
    try:
        for turn in range(rounds + 2):
            seconds = (_run_bare(host, image, folder), _run_task(door, model, data))
            # The first turns warm caches on both sides.
            if turn >= 2:
                bare.append(seconds[0])
                spine.append(seconds[1])
    finally:
        host.close()
    return bare, spine


def _run_bare(host: docker.DockerClient, image: str, folder: Path) -> float:
    began = time.perf_counter()
    container = host.containers.create(
        image,
        network_mode="none",
        volumes={
            str(folder / "in"): {"bind": "/input", "mode": "ro"},
            str(folder / "out"): {"bind": "/output", "mode": "rw"},
        },
    )
    container.start()
    assert container.wait()["StatusCode"] == 0
    container.remove()
    return time.perf_counter() - began


def _run_task(door: DoorClient, model: str, data: bytes) -> float:
    began = time.perf_counter()
    uid = door.submit_zip(model, data)
    answer = door.ended(uid)
    assert answer.status_code == 200, answer.text
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
