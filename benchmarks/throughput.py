"""Tasks per second of a queue that is full: with one consumer and with several, against the same containers by hand.

    .venv/bin/python -m benchmarks.throughput [--tasks 200] [--consumers 1,2]

The tasks do nothing and are queued before the consumers start; the rate is that from the first end to the last, by the
database's clock. Services are processes over PostgreSQL and RabbitMQ, all consumers on this machine, each of them for
tasks without a GPU. The yardstick is a loop that runs the same container with the same options one after another
(`benchmarks.bare_run`), before the tasks and after them, and the mean counts. Goals: one consumer at least 0.95 of the
loop, two at least 1.8 times one.
"""

import argparse
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from benchmarks import figures
from benchmarks.bare_run import BareRuns, bare_runs
from benchmarks.overhead import running
from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import echo_image
from tests.e2e.processes import Process
from tests.e2e.systems import System
from tests.zips import make_zip

GOAL_OF_ONE = 0.95
GOAL_OF_TWO = 1.8
_BARE_ROUNDS = 10


def main() -> None:
    """Print the rates and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--consumers", default="1,2", help="how many; several with commas")
    figures.add_option(parser)
    arguments = parser.parse_args()
    if arguments.tasks < 2:
        parser.error("a rate needs two tasks")
    print(f"{arguments.tasks} queued tasks that do nothing, services")
    one = 0.0
    for count in map(int, arguments.consumers.split(",")):
        with tempfile.TemporaryDirectory() as name:
            rate, bare = measure(Path(name), count, arguments.tasks)
        one = rate if count == 1 else one
        print(
            f"consumers: {count}   {rate:6.2f} tasks/s   bare loop {bare:6.2f}/s   {rate / bare:.2f} of the loop"
            + (f"   {rate / one:.2f} of one consumer" if one and count > 1 else ""),
            flush=True,
        )
        figures.record(arguments.json, *report(count, rate, bare, one))


def report(count: int, rate: float, bare: float, one: float) -> list[figures.Figure]:
    """The figures of so many consumers; `one` is the rate of a single one, 0 if that was not measured."""
    goal = figures.at_least(GOAL_OF_ONE, "ratio") if count == 1 else None
    found = [figures.compared("tasks that do nothing", rate, "/s", bare, goal=goal, along="consumers", at=count)]
    if one and count > 1:
        more = figures.at_least(GOAL_OF_TWO, "ratio") if count == 2 else None
        found.append(figures.compared(f"{count} consumers, to one", rate, "/s", one, goal=more))
    return found


def measure(folder: Path, consumers: int, tasks: int) -> tuple[float, float]:
    """Tasks and bare runs per second."""
    image = echo_image()
    with (
        running("services", folder) as system,
        door_of(system.url) as door,
        bare_runs(image, folder / "bare-runs") as bare,
    ):
        model, data = door.add_model(image), make_zip({"a.txt": b"1"})
        warm = door.submit_zip(model, data)
        assert door.ended(warm).status_code == 200
        before = _loop(bare)
        system.consumer.end()
        uids = [door.submit_zip(model, data) for _ in range(tasks)]
        with consumers_of(system, folder, consumers):
            rate = _rate(door, uids)
        return rate, statistics.mean((before, _loop(bare)))


def _loop(bare: BareRuns) -> float:
    bare.run()
    began = time.perf_counter()
    for _ in range(_BARE_ROUNDS):
        bare.run()
    return _BARE_ROUNDS / (time.perf_counter() - began)


@contextmanager
def consumers_of(system: System, folder: Path, count: int) -> Iterator[None]:
    """The system's own consumer, and more like it, while the block is open."""
    own = system.consumer
    assert isinstance(own, Process)
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        for number in range(1, count):
            environment = {
                **own.environment,
                "CONSUMER_NAME": f"more-{number}-{secrets.token_hex(4)}",
                "WORK_DIR": str(folder / f"work-{number}"),
            }
            process = Process("job_consumer", own.command, environment, folder / f"consumer-{number}.log")
            process.start()
            stack.callback(process.end)
        own.start()
        yield


def _rate(door: DoorClient, uids: list[str]) -> float:
    for uid in uids:
        answer = door.ended(uid)
        assert answer.status_code == 200, answer.text
    ends = sorted(datetime.fromisoformat(door.status(uid)["ended_at"]) for uid in uids)
    return (len(ends) - 1) / (ends[-1] - ends[0]).total_seconds()


if __name__ == "__main__":
    main()
