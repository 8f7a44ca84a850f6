"""What the filter before the Docker Engine adds to a run: create, start, wait, log and remove, with it and without.

    .venv/bin/python -m benchmarks.engine_filter [--rounds 40]

The filter is a process of its own, as in a stack. Both are measured in turns in one run and compared by their medians.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Event

from benchmarks import figures
from tests.engine_client import SOCKET, engine_client
from tests.integration.engine_harness import Harness, docker_harness
from tests.waiting import wait_until


def main() -> None:
    """Print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    figures.add_option(parser)
    arguments = parser.parse_args()
    rounds = arguments.rounds
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder)
        client = stack.enter_context(closing(engine_client()))
        url = stack.enter_context(running_filter(root))
        bare = stack.enter_context(docker_harness(root / "work", client))
        filtered = stack.enter_context(docker_harness(root / "work", client, base_url=url))
        times: dict[str, list[float]] = {"bare": [], "filtered": []}
        for number in range(rounds + 2):
            for name, harness in (("bare", bare), ("filtered", filtered)):
                took_s = run_once(harness)
                # The first ones build the image and warm both up.
                if number >= 2:
                    times[name].append(took_s)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{rounds} runs each, in turns")
    print(f"without the filter   median {medians['bare'] * 1000:6.1f} ms")
    print(f"with it              median {medians['filtered'] * 1000:6.1f} ms")
    print(
        f"difference {(medians['filtered'] - medians['bare']) * 1000:.1f} ms, "
        f"ratio {medians['filtered'] / medians['bare']:.3f}"
    )
    run = figures.compared("a run through the filter", medians["filtered"] * 1000, "ms", medians["bare"] * 1000)
    figures.record(arguments.json, run)


def run_once(harness: Harness) -> float:
    """The seconds of one run; its folders are made before."""
    spec = harness.spec("true")
    began_at = time.monotonic()
    harness.engine.start(spec)
    harness.engine.wait(spec.key, 60)
    list(harness.engine.follow_log(spec.key, Event()))
    harness.engine.remove(spec.key)
    return time.monotonic() - began_at


@contextmanager
def running_filter(folder: Path) -> Iterator[str]:
    """Run the filter while the block is open; yields its address."""
    socket = folder / "filter.sock"
    variables = {"ENGINE_SOCKET": SOCKET, "FILTER_SOCKET": str(socket), "WORK_DIR": str(folder / "work")}
    command = [sys.executable, "-m", "job_consumer.engines.docker.filter"]
    with subprocess.Popen(command, env={**os.environ, **variables, "LOG_LEVEL": "WARNING"}) as process:
        try:
            wait_until(socket.exists, "the filter listens")
            yield f"unix://{socket}"
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
