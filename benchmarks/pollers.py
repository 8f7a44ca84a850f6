"""Polls of tasks that wait: what many pollers get, what one costs in a long queue, and what open long polls cost.

    .venv/bin/python -m benchmarks.pollers [--system services|standalone] [--only rate,pollers,queue,long]
        [--clients 32] [--pollers 500] [--long 2000] [--depths 100000]

- rate: 32 clients poll as fast as they are answered, against a bare FastAPI. Goal: 0.25 of its rate. With several
  numbers of clients, as `1,8,32`, each is measured.
- pollers: 500 clients poll once a second each, against the same of a bare FastAPI. Goal: 500/s, a 99th percentile
  below 100 ms, no error.
- queue: one client polls in a queue of 100 000 tasks, against a short one in the same run. Goal: as fast. Of
  several depths each is measured, each larger than the one before.
- long: 2000 open long polls. CPU of all processes while nothing happens, and how soon after its end a task is answered.
  The yardstick is the CPU of the same processes without them. Goals: 0.05 of a core, 0.2 s.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import figures
from benchmarks.bare_api import bare_api
from benchmarks.http_calls import Calls, Figures, send
from benchmarks.overhead import running
from private_api.database import Database
from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import echo_image
from tests.e2e.systems import System
from tests.filled import requeue_copies
from tests.zips import make_zip

_TASKS = 64
_ENDED = 16
"""How many of them are cancelled under open long polls."""
OF_GOALS = 32
"""The number of clients that the goal of their rate speaks of."""
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print every figure beside its yardstick and its goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", choices=("services", "standalone"), default="services")
    parser.add_argument("--only", default="rate,pollers,long,queue")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--clients", type=_numbers, default=[32])
    parser.add_argument("--pollers", type=int, default=500)
    parser.add_argument("--long", type=int, default=2000)
    parser.add_argument("--depths", type=_numbers, default=[100_000])
    figures.add_option(parser)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        system = stack.enter_context(running(arguments.system, folder))
        door = stack.enter_context(door_of(system.url))
        bare = stack.enter_context(bare_api(folder))
        # Nobody has the GPU that they need.
        model = door.add_model(echo_image(), use_gpu="true")
        uids = [door.submit_zip(model, make_zip({"a.txt": b"1"})) for _ in range(_TASKS)]
        port = urlsplit(system.url).port or 0
        print(f"system {arguments.system}")
        run = _Run(system, door, port, bare, uids, arguments)
        for name in arguments.only.split(","):
            for figure in _PARTS[name](run):
                figures.record(arguments.json, figure)


@dataclass(frozen=True)
class _Run:
    """What is measured, and how."""

    system: System
    door: DoorClient
    port: int
    bare: int
    """The port of the yardstick."""
    uids: list[str]
    """Of tasks that wait."""
    options: argparse.Namespace


def _numbers(given: str) -> list[int]:
    return [int(each) for each in given.split(",")]


def polls(port: int, uids: list[str], clients: int, seconds: float, every_s: float = 0) -> Figures:
    """The figures of polls of these tasks."""
    return send(Calls(port, [f"/api/tasks/{uid}" for uid in uids], clients, seconds, every_s))


def say(what: str, figures: Figures) -> None:
    """Print one row."""
    print(
        f"{what:32} {figures.rate:7.0f}/s  p50 {figures.p50_ms:7.1f} ms  p99 {figures.p99_ms:7.1f} ms"
        f"  errors {figures.errors or 'none'}",
        flush=True,
    )


def measure_rate(run: _Run) -> Iterator[figures.Figure]:
    """As fast as answered."""
    for clients in run.options.clients:
        yardstick, ours = (polls(port, run.uids, clients, run.options.seconds) for port in (run.bare, run.port))
        say(f"{clients} clients, bare", yardstick)
        say(f"{clients} clients", ours)
        print(f"{'ratio':32} {ours.rate / yardstick.rate:7.2f}   (goal for {OF_GOALS}: at least 0.25)")
        goal = figures.at_least(0.25, "ratio") if clients == OF_GOALS else None
        yield figures.compared("polls", ours.rate, "/s", yardstick.rate, goal=goal, along="clients", at=clients)


def measure_pollers(run: _Run) -> Iterator[figures.Figure]:
    """Once a second each."""
    count = run.options.pollers
    yardstick, ours = (polls(port, run.uids, count, run.options.seconds, 1) for port in (run.bare, run.port))
    say(f"{count} at 1/s each, bare", yardstick)
    say(f"{count} at 1/s each", ours)
    print(f"{'ratio':32} {ours.p99_ms / yardstick.p99_ms:7.2f} of its p99   (goal: p99 below 100 ms, no error)")
    name = f"{count} pollers at 1/s"
    yield figures.compared(f"{name}, p99", ours.p99_ms, "ms", yardstick.p99_ms, goal=figures.at_most(100))
    yield figures.Figure(f"{name}, errors", sum(ours.errors.values()), "", goal=figures.at_most(0))


def measure_queue(run: _Run) -> Iterator[figures.Figure]:
    """In a short queue and in longer ones."""
    short = polls(run.port, run.uids[-1:], 1, run.options.seconds)
    say(f"1 client, {_TASKS} queued", short)
    database = Database(database_url(run.system))
    copies = 0
    for depth in run.options.depths:
        requeue_copies(database, run.uids[_ENDED], depth - copies, above=copies)
        copies = depth
        full = polls(run.port, run.uids[-1:], 1, run.options.seconds)
        say(f"1 client, {depth} queued", full)
        print(f"{'ratio':32} {full.p50_ms / short.p50_ms:7.2f} of its median   (goal: at most 1.3)")
        flat, place = figures.at_most(1.3, "ratio"), {"along": "queued tasks", "at": depth}
        yield figures.compared("a poll in a long queue, p50", full.p50_ms, "ms", short.p50_ms, goal=flat, **place)
    database.close()


def measure_long(run: _Run) -> Iterator[figures.Figure]:
    """Long polls that are open."""
    seconds, count = run.options.seconds, run.options.long
    before = cpu_of(run.system, seconds)
    spent, waits = asyncio.run(open_long_polls(run, count, seconds))
    print(f"{'CPU without long polls':32} {before:7.3f} of a core")
    print(f"{f'CPU with {count} of them':32} {spent:7.3f} of a core   (goal: less than 0.05 more)")
    print(
        f"{'answered after the end':32} median {waits[len(waits) // 2]:.3f} s, longest {waits[-1]:.3f} s"
        "   (goal: 0.2 s)"
    )
    more = figures.Figure(f"{count} open long polls, more CPU", spent - before, "cores", goal=figures.at_most(0.05))
    yield more
    yield figures.Figure("answered after the end, longest", waits[-1], "s", goal=figures.at_most(0.2))


async def open_long_polls(run: _Run, count: int, seconds: float) -> tuple[float, list[float]]:
    """Open them, look how much CPU they take, and cancel one task after the other."""
    ended_at: dict[str, float] = {}
    waits: list[float] = []

    async def poll(uid: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", run.port)
        writer.write(f"GET /api/tasks/{uid}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        if uid in ended_at:
            waits.append(time.perf_counter() - ended_at[uid])
        writer.close()

    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(poll(run.uids[number % len(run.uids)])))
        # A crowd that comes at once is not what this is about.
        await asyncio.sleep(0.005)
    # Until the last of them has been taken in.
    await asyncio.sleep(10)
    spent = await asyncio.to_thread(cpu_of, run.system, seconds)
    for uid in run.uids[:_ENDED]:
        await asyncio.to_thread(run.door.http.post, f"/api/tasks/{uid}/cancel")
        ended_at[uid] = time.perf_counter()
        await asyncio.sleep(0.3)
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return spent, sorted(waits)


def cpu_of(system: System, seconds: float) -> float:
    """How much of a core the APIs use."""
    began, before = time.perf_counter(), ticks_of(system)
    time.sleep(seconds)
    return (ticks_of(system) - before) / _TICKS / (time.perf_counter() - began)


def ticks_of(system: System) -> int:
    """CPU time of the APIs so far; of standalone, that of everything."""
    used = 0
    for process in system.processes:
        if process.name != "job_consumer":
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()  # type: ignore[attr-defined]
            used += int(fields[11]) + int(fields[12])
    return used


def database_url(system: System) -> str:
    """Where its rows are."""
    for process in system.processes:
        if url := process.environment.get("DATABASE_URL"):  # type: ignore[attr-defined]
            return str(url)
    return f"sqlite:///{system.data_dir / 'inference.db'}"


_PARTS = {"rate": measure_rate, "pollers": measure_pollers, "queue": measure_queue, "long": measure_long}


if __name__ == "__main__":
    main()
