"""Measures what one task costs each part of a running server, for `benchmarks.scale`.

A consumer beside its private API links an input that another one would fetch; the model counts that way, too.
"""

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import make_url, text

from benchmarks.http_calls import Calls, send
from benchmarks.janitor import database_of, seconds_of
from benchmarks.overhead import running
from benchmarks.pollers import database_url
from benchmarks.throughput import consumers_of
from benchmarks.transfer import copy
from private_api.database import Database
from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import echo_image, script_image
from tests.e2e.systems import System
from tests.filled import fill_with_ended_tasks
from tests.zips import make_zip

_TICKS = os.sysconf("SC_CLK_TCK")
_BODY_MIB = 16
_COMMITS = 50
_ROWS = 5000
_TOLD_S = 1.5
_IDLE_S = 5.0
_SERVICES = ("private_api", "public_api")


@dataclass(frozen=True)
class Spent:
    """What a while took."""

    seconds: float
    cpu_s: dict[str, float]
    """Of `private_api`, `public_api` and `postgres`."""
    commits: float

    def beyond(self, idle: "Spent") -> "Spent":
        """What was spent beyond what the same time costs when nothing happens."""
        share = self.seconds / idle.seconds
        cpu_s = {name: max(0.0, spent - idle.cpu_s[name] * share) for name, spent in self.cpu_s.items()}
        return Spent(self.seconds, cpu_s, max(0.0, self.commits - idle.commits * share))


class Meter:
    """Looks at the processes of a system and at its database."""

    def __init__(self, system: System, database: Database) -> None:
        self._system = system
        self._database = database
        self._name = make_url(database.url).database

    @contextmanager
    def measuring(self) -> Iterator[list[Spent]]:
        """One `Spent` is in the list once the block has ended."""
        found: list[Spent] = []
        before, began = self._look(), time.perf_counter()
        yield found
        after, seconds = self._look(), time.perf_counter() - began
        (cpu, commits), (cpu_before, commits_before) = after, before
        spent = {name: cpu[name] - cpu_before[name] for name in cpu}
        found.append(Spent(seconds, spent, commits - commits_before))

    def _look(self) -> tuple[dict[str, float], float]:
        # PostgreSQL's sessions tell what they did a second later.
        time.sleep(_TOLD_S)
        cpu = {each.name: _cpu_s(each.pid) for each in self._system.processes if each.name in _SERVICES}
        cpu["postgres"] = sum(map(_cpu_s, self._backends()))
        statement = text("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
        with self._database.read() as session:
            commits = session.execute(statement).scalar_one()
        return cpu, float(commits)

    def _backends(self) -> list[int]:
        """The processes of PostgreSQL that work for this database, where it runs on this machine."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                title = (folder / "cmdline").read_bytes().decode(errors="replace")
                if title.startswith("postgres:") and f" {self._name} " in title:
                    found.append(int(folder.name))
        return found


def _cpu_s(pid: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


@dataclass(frozen=True)
class Run:
    """What a number of tasks did."""

    rate: float
    """Tasks in a second, from the first end to the last."""
    spent: Spent
    tasks: int


@contextmanager
def measured_system() -> Iterator[tuple[System, DoorClient, Database, Path]]:
    """The services as processes over PostgreSQL and RabbitMQ, with one consumer."""
    with tempfile.TemporaryDirectory() as name, running("services", Path(name)) as system, door_of(system.url) as door:
        database = Database(database_url(system), pool_size=1)
        try:
            yield system, door, database, Path(name)
        finally:
            database.close()


def idle_costs(place: tuple[System, DoorClient, Database, Path]) -> Spent:
    """What a while costs in which nothing happens."""
    system, _, database, _ = place
    with Meter(system, database).measuring() as spent:
        time.sleep(_IDLE_S)
    return spent[0]


def row_costs() -> float:
    """What the rows of a finished task add to a database, in KiB."""
    statement = text("SELECT pg_database_size(current_database())")
    with tempfile.TemporaryDirectory() as name, database_of("postgres", Path(name)) as database:

        def size() -> int:
            with database.read() as session:
                return int(session.execute(statement).scalar_one())

        before = size()
        fill_with_ended_tasks(database, _ROWS)
        return (size() - before) / 1024 / _ROWS


def run_tasks(place: tuple[System, DoorClient, Database, Path], tasks: int, run_s: float, consumers: int) -> Run:
    """Queue tasks that sleep, let so many consumers run them, and poll each until it ends."""
    system, door, database, folder = place
    model = door.add_model(script_image(f"sleep {run_s:g}; cp -r /input/. /output/"))
    data = make_zip({"a.txt": b"1"})
    assert door.ended(door.submit_zip(model, data)).status_code == 200
    system.consumer.end()
    with Meter(system, database).measuring() as spent:
        uids = [door.submit_zip(model, data) for _ in range(tasks)]
        with consumers_of(system, folder / secrets.token_hex(4), consumers):
            for uid in uids:
                assert door.ended(uid).status_code == 200
            ends = sorted(datetime.fromisoformat(door.status(uid)["ended_at"]) for uid in uids)
    return Run((len(ends) - 1) / (ends[-1] - ends[0]).total_seconds(), spent[0], tasks)


def call_costs(place: tuple[System, DoorClient, Database, Path], idle: Spent, seconds: float = 3) -> dict[str, float]:
    """CPU seconds of a poll that finds its task waiting, by part."""
    system, door, database, _ = place
    model = door.add_model(echo_image(), use_gpu="true")
    uid = door.submit_zip(model, make_zip({"a.txt": b"1"}))
    with Meter(system, database).measuring() as spent:
        polled = send(Calls(urlsplit(system.url).port or 0, [f"/api/tasks/{uid}"], 4, seconds))
    door.http.post(f"/api/tasks/{uid}/cancel").raise_for_status()
    return {name: cpu_s / polled.calls for name, cpu_s in spent[0].beyond(idle).cpu_s.items()}


def byte_costs(
    place: tuple[System, DoorClient, Database, Path], per_task: dict[str, float], idle: Spent
) -> tuple[float, float]:
    """CPU seconds of a MiB that passes the private API once, and the door; `per_task` is what a task costs without."""
    system, door, database, _ = place
    model = door.add_model(echo_image())
    data = make_zip({"a.bin": os.urandom(_BODY_MIB * 1024**2)})
    with Meter(system, database).measuring() as spent:
        assert door.ended(door.submit_zip(model, data)).status_code == 200
    cpu_s = spent[0].beyond(idle).cpu_s
    more = {name: max(0.0, cpu_s[name] - per_task[name]) for name in _SERVICES}
    # In and out; the private API takes the output from the consumer besides.
    return more["private_api"] / (3 * _BODY_MIB), more["public_api"] / (2 * _BODY_MIB)


def disk_costs(place: tuple[System, DoorClient, Database, Path]) -> tuple[float, float]:
    """Seconds of a durable commit of one row, the median, and MiB a second of a copy with sha256 and fsync."""
    _, _, database, folder = place
    with database.write() as session:
        session.execute(text("CREATE TABLE scale_bare (n integer)"))

    def commit() -> None:
        with database.write() as session:
            session.execute(text("INSERT INTO scale_bare VALUES (1)"))

    times = sorted(seconds_of(commit) for _ in range(_COMMITS))
    source = folder / "copied.bin"
    source.write_bytes(os.urandom(4 * _BODY_MIB * 1024**2))
    return times[_COMMITS // 2], 4 * _BODY_MIB / copy(source, folder / "copy.bin")
