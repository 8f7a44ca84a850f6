"""Polls of tasks that wait: what many pollers get, what one costs in a long queue, and what open long polls cost.

    .venv/bin/python -m benchmarks.pollers [--system services|standalone] [--only rate,pollers,queue,long]

- rate: 32 clients poll as fast as they are answered, against a bare FastAPI. Goal: 0.25 of its rate.
- pollers: 500 clients poll once a second each, against the same of a bare FastAPI. Goal: 500/s, a 99th percentile
  below 100 ms, no error.
- queue: one client polls in a queue of 100 000 tasks, against a short one in the same run. Goal: as fast.
- long: 2000 open long polls. CPU of all processes while nothing happens, and how soon after its end a task is answered.
  The yardstick is the CPU of the same processes without them. Goals: 0.05 of a core, 0.2 s.
"""

import argparse
import asyncio
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

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
_LONG = 2000
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print every figure beside its yardstick and its goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", choices=("services", "standalone"), default="services")
    parser.add_argument("--only", default="rate,pollers,long,queue")
    parser.add_argument("--seconds", type=float, default=8)
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
        for name in arguments.only.split(","):
            _PARTS[name](system, door, port, bare, uids, arguments.seconds)


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


def measure_rate(_s: System, _d: DoorClient, port: int, bare: int, uids: list[str], seconds: float) -> None:
    """As fast as answered."""
    yardstick, ours = polls(bare, uids, 32, seconds), polls(port, uids, 32, seconds)
    say("32 clients, bare", yardstick)
    say("32 clients", ours)
    print(f"{'ratio':32} {ours.rate / yardstick.rate:7.2f}   (goal: at least 0.25)")


def measure_pollers(_s: System, _d: DoorClient, port: int, bare: int, uids: list[str], seconds: float) -> None:
    """Once a second each."""
    yardstick, ours = polls(bare, uids, 500, seconds, 1), polls(port, uids, 500, seconds, 1)
    say("500 at 1/s each, bare", yardstick)
    say("500 at 1/s each", ours)
    print(f"{'ratio':32} {ours.p99_ms / yardstick.p99_ms:7.2f} of its p99   (goal: p99 below 100 ms, no error)")


def measure_queue(system: System, _d: DoorClient, port: int, _b: int, uids: list[str], seconds: float) -> None:
    """In a short queue and in a long one."""
    short = polls(port, uids[-1:], 1, seconds)
    say(f"1 client, {_TASKS} queued", short)
    database = Database(database_url(system))
    requeue_copies(database, uids[0], 100_000)
    database.close()
    full = polls(port, uids[-1:], 1, seconds)
    say("1 client, 100 000 queued", full)
    print(f"{'ratio':32} {full.p50_ms / short.p50_ms:7.2f} of its median   (goal: at most 1.3)")


def measure_long(system: System, door: DoorClient, port: int, _b: int, uids: list[str], seconds: float) -> None:
    """Long polls that are open."""
    before = cpu_of(system, seconds)
    spent, waits = asyncio.run(open_long_polls(system, door, port, uids, seconds))
    print(f"{'CPU without long polls':32} {before:7.3f} of a core")
    print(f"{f'CPU with {_LONG} of them':32} {spent:7.3f} of a core   (goal: less than 0.05 more)")
    print(
        f"{'answered after the end':32} median {waits[len(waits) // 2]:.3f} s, longest {waits[-1]:.3f} s"
        "   (goal: 0.2 s)"
    )


async def open_long_polls(
    system: System, door: DoorClient, port: int, uids: list[str], seconds: float
) -> tuple[float, list[float]]:
    """Open them, look how much CPU they take, and cancel one task after the other."""
    ended_at: dict[str, float] = {}
    waits: list[float] = []

    async def poll(uid: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /api/tasks/{uid}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        if uid in ended_at:
            waits.append(time.perf_counter() - ended_at[uid])
        writer.close()

    tasks = []
    for number in range(_LONG):
        tasks.append(asyncio.create_task(poll(uids[number % len(uids)])))
        # A crowd that comes at once is not what this is about.
        await asyncio.sleep(0.005)
    # Until the last of them has been taken in.
    await asyncio.sleep(10)
    spent = await asyncio.to_thread(cpu_of, system, seconds)
    for uid in uids[:16]:
        await asyncio.to_thread(door.http.post, f"/api/tasks/{uid}/cancel")
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
