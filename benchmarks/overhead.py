"""What the server adds to a container: from submission to finished zip, against create, start, wait and remove.

    .venv/bin/python -m benchmarks.overhead [--rounds 30] [--system standalone|services]

Both use the same image with the same options, which are read off a container that the server made. They are measured
in turns in one run and compared by their medians. Goals: at most 1.15 standalone, 1.20 as services. Where the time goes
is told by the Engine's own events.
"""

import argparse
import copy
import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker

from tests.databases import postgres_server
from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import echo_image
from tests.e2e.systems import System, services_system, standalone_system
from tests.services import DATABASE_URL
from tests.zips import make_zip

GOALS = {"standalone": 1.15, "services": 1.20}
_WARM = 2
"""The first turns warm caches on both sides."""


def main() -> None:
    """Print both medians, their ratio and where the time went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--system", choices=tuple(GOALS), default="standalone")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running(arguments.system, Path(folder)) as system,
        door_of(system.url) as door,
    ):
        bare, spine, parts = measure(door, arguments.rounds, Path(folder))
    ratio = statistics.median(spine) / statistics.median(bare)
    print(f"system                              {arguments.system}, {arguments.rounds} rounds each, in turns")
    print(f"bare create+start+wait+remove       median {statistics.median(bare) * 1000:6.0f} ms")
    print(f"submit to zip ready                 median {statistics.median(spine) * 1000:6.0f} ms")
    for name, seconds in parts.items():
        print(f"  {name:<33} median {statistics.median(seconds) * 1000:6.0f} ms")
    print(f"ratio                               {ratio:.2f}   (goal: at most {GOALS[arguments.system]:.2f})")


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


def measure(door: DoorClient, rounds: int, folder: Path) -> tuple[list[float], list[float], dict[str, list[float]]]:
    """Measure the seconds of each bare run, of each task, and of the parts of each task."""
    model, data = door.add_model(echo_image()), make_zip({"a.txt": b"1"})
    host = docker.APIClient(version="auto")
    bare: list[float] = []
    spine: list[float] = []
    parts: dict[str, list[float]] = {}
    try:
        config = _options_of(host, door, model, data, folder)
        for turn in range(_WARM + rounds):
            seconds = _run_bare(host, config), _run_task(host, door, model, data)
            if turn >= _WARM:
                bare.append(seconds[0])
                spine.append(sum(seconds[1].values()))
                for name, part in seconds[1].items():
                    parts.setdefault(name, []).append(part)
    finally:
        host.close()
    return bare, spine, parts


def _options_of(host: docker.APIClient, door: DoorClient, model: str, data: bytes, folder: Path) -> dict[str, Any]:
    """The body that creates a container as the server does, over folders of our own."""
    found: list[dict[str, Any]] = []

    def find() -> None:
        for event in host.events(decode=True, filters={"type": "container", "event": "create"}):
            found.append(host.inspect_container(event["id"]))
            return

    finder = threading.Thread(target=find, daemon=True)
    finder.start()
    assert door.ended(door.submit_zip(model, data)).status_code == 200
    finder.join(10)
    (container,) = found
    config = {**container["Config"], "HostConfig": copy.deepcopy(container["HostConfig"])}
    del config["Labels"], config["Hostname"]
    for mount in config["HostConfig"]["Mounts"]:
        of_its_own = folder / "bare" / Path(mount["Target"]).name
        of_its_own.mkdir(parents=True)
        # The image runs as another user.
        of_its_own.chmod(0o777)
        if mount["Target"] == "/input":
            (of_its_own / "a.txt").write_text("1")
        mount["Source"] = f"benchmark-{of_its_own.name}"
        mount["VolumeOptions"]["Labels"] = {}
        mount["VolumeOptions"]["DriverConfig"]["Options"]["device"] = str(of_its_own)
    return config


def _run_bare(host: docker.APIClient, config: dict[str, Any]) -> float:
    began = time.perf_counter()
    container = host.create_container_from_config(config)["Id"]  # type: ignore[no-untyped-call]
    host.start(container)
    assert host.wait(container)["StatusCode"] == 0
    host.remove_container(container, v=True)
    for mount in config["HostConfig"]["Mounts"]:
        host.remove_volume(mount["Source"])
    return time.perf_counter() - began


def _run_task(host: docker.APIClient, door: DoorClient, model: str, data: bytes) -> dict[str, float]:
    """Seconds from one to the next of: submission, creation, start, end of the run, answer."""
    began = time.time()
    uid = door.submit_zip(model, data)
    answer = door.ended(uid)
    ended = time.time()
    assert answer.status_code == 200, answer.text
    at = {
        event["Action"]: event["timeNano"] / 1e9
        for event in host.events(since=int(began), until=int(ended) + 1, decode=True, filters={"type": "container"})
        if uid in event["Actor"]["Attributes"].get("name", "")
    }
    moments = [began, at["create"], at["start"], at["die"], ended]
    names = ("submission to creation", "creation to start", "run", "end of the run to zip ready")
    return dict(zip(names, (after - before for before, after in itertools.pairwise(moments)), strict=True))


if __name__ == "__main__":
    main()
