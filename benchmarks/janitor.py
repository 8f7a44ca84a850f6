"""How long a step of the janitor takes in a database full of ended tasks, and what a write waits beside it.

    .venv/bin/python -m benchmarks.janitor [--tasks 1000000] [--due 2000] [--logs 100000]
        [--database postgres|sqlite]

The rows are those of finished tasks with an input, an output, an attempt and an event; the `--logs` newest have a log,
too. First nothing is due, which is what a step finds every minute; then the `--due` newest tasks are, files included.
The yardstick of both is the simplest statement that reads every task once, `SELECT count(detail) FROM tasks`, in the
same database. Beside the second, a thread commits one row after the other: the yardstick of its 99th percentile is the
same without a janitor. Goals: a step takes less than 1 s, and no write waits longer than 0.25 s for it.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from sqlalchemy import text

from benchmarks import figures
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.loops.janitor import Janitor
from private_api.task_logs import TaskLogs
from tests.databases import copy_sqlite, make_sqlite_template, migrate_url, opened, postgres_server
from tests.filled import fill_with_ended_tasks, uid_of
from tests.services import DATABASE_URL

GOAL_S = 1.0
WAIT_GOAL_S = 0.25
_KEPT = timedelta(days=30)


def main() -> None:
    """Print how long steps took, beside their yardsticks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--due", type=int, default=2000)
    parser.add_argument("--logs", type=int, default=100_000)
    parser.add_argument("--database", choices=("postgres", "sqlite"), default="postgres")
    figures.add_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, database_of(arguments.database, Path(name)) as database:
        fill_with_ended_tasks(database, arguments.tasks)
        print(f"{arguments.tasks} finished tasks, {arguments.database}")
        figures.record(arguments.json, *measure(database, Path(name), arguments.due, arguments.logs))


@contextmanager
def database_of(kind: str, folder: Path) -> Iterator[Database]:
    """A migrated database of its own while the block is open, as durable as a server's."""
    if kind == "sqlite":
        with opened(copy_sqlite(make_sqlite_template(folder), folder)) as database:
            yield database
        return
    with postgres_server(DATABASE_URL) as server:
        name = server.create()
        url = server.url_of(name, durable=True)
        migrate_url(url)
        with opened(url) as database:
            yield database
        server.drop(name)


def measure(database: Database, folder: Path, due: int, log_count: int) -> list[figures.Figure]:
    """Print the steps without and with something to do; returns them."""
    store, logs = ArchiveStore(folder / "archives"), TaskLogs(folder / "logs")
    make_files(store, logs, due, log_count)
    janitor = Janitor(database, store, logs, keep_finished_for=_KEPT)
    # The first reads what no cache has.
    scan = [seconds_of(lambda: read_every_task(database)) for _ in range(3)]
    first, idle = seconds_of(janitor.step), [seconds_of(janitor.step) for _ in range(3)]
    say("every task read once", statistics.median(scan))
    say("first step, nothing due", first, statistics.median(scan))
    say("later step, nothing due", statistics.median(idle), statistics.median(scan))

    create_table(database)
    alone = waits_beside(database, lambda: time.sleep(3))
    expire(database, due)
    steps: list[float] = []

    def clean() -> None:
        while count_due(database):
            steps.append(seconds_of(janitor.step))

    beside = waits_beside(database, clean)
    say(f"{due} tasks due: longest of {len(steps)} steps", max(steps), statistics.median(scan))
    print(f"{due} tasks due: in all                   {sum(steps):8.3f} s   {due / sum(steps):.0f} tasks/s")
    print(f"a commit alone                        p99 {p99(alone):8.4f} s, longest {max(alone):.4f} s")
    print(
        f"a commit beside the janitor           p99 {p99(beside):8.4f} s, longest {max(beside):.4f} s   "
        f"{p99(beside) / p99(alone):.1f} times   (goal: at most {WAIT_GOAL_S} s)"
    )
    scan_s, within = statistics.median(scan), figures.at_most(GOAL_S)
    return [
        figures.compared("first step of the janitor, nothing due", first, "s", scan_s, goal=within),
        figures.compared("later step, nothing due", statistics.median(idle), "s", scan_s, goal=within),
        figures.compared(f"longest step of {due} due tasks", max(steps), "s", scan_s, goal=within),
        figures.compared("a commit beside it, p99", p99(beside), "s", p99(alone), goal=figures.at_most(WAIT_GOAL_S)),
    ]


def make_files(store: ArchiveStore, logs: TaskLogs, due: int, log_count: int) -> None:
    """The inputs and outputs of the tasks that will be due, and logs."""
    for number in range(1, due + 1):
        output = store.path(f"outputs/{uid_of(number)}/1.zip")
        output.parent.mkdir()
        for path in (output, store.path(f"inputs/{uid_of(number)}.zip")):
            path.write_bytes(bytes(1000))
    for number in range(1, log_count + 1):
        logs.path(uid_of(number), 1).touch()


def say(what: str, seconds: float, yardstick: float | None = None) -> None:
    """Print one row."""
    ratio = "" if yardstick is None else f"   {seconds / yardstick:6.2f} times   (goal: < {GOAL_S} s)"
    print(f"{what:38} {seconds:11.3f} s{ratio}", flush=True)


def seconds_of(work: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def read_every_task(database: Database) -> None:
    """The yardstick."""
    with database.read() as session:
        session.execute(text("SELECT count(detail) FROM tasks")).all()


def expire(database: Database, count: int) -> None:
    """Let the owners of the newest tasks delete them."""
    with database.write() as session:
        session.execute(text("UPDATE tasks SET deleted_at = ended_at WHERE id <= :count"), {"count": count})


def count_due(database: Database) -> int:
    """How many deleted tasks are no tombstones yet."""
    statement = "SELECT count(*) FROM tasks WHERE deleted_at IS NOT NULL AND forgotten_at IS NULL"
    with database.read() as session:
        return int(session.execute(text(statement)).scalar_one())


def create_table(database: Database) -> None:
    """For the writes beside."""
    with database.write() as session:
        session.execute(text("CREATE TABLE beside (at FLOAT)"))


def waits_beside(database: Database, work: Callable[[], object]) -> list[float]:
    """How long each commit of one row took while the work was done."""
    done = threading.Event()
    waits: list[float] = []

    def write() -> None:
        while not done.is_set():
            waits.append(seconds_of(lambda: insert(database)))
            done.wait(0.005)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        work()
    finally:
        done.set()
        thread.join()
    return waits


def insert(database: Database) -> None:
    """Commit one row."""
    with database.write() as session:
        session.execute(text("INSERT INTO beside VALUES (1)"))


def p99(values: list[float]) -> float:
    """The 99th percentile."""
    return sorted(values)[max(0, round(len(values) * 0.99) - 1)]


if __name__ == "__main__":
    main()
