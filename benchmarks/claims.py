"""How long a claim takes in a database full of tasks, and whether that depends on how full it is.

    .venv/bin/python -m benchmarks.claims [--ended 1000,1000000] [--queued 1000,100000] [--claims 500]
        [--database postgres|sqlite]

Each number of ended tasks goes with the number of queued ones at the same place, in a database of its own. A claim is
the rule of the private API, one transaction; HTTP is not part of it. Each task that was claimed is ended before the
next claim, which is not timed. The yardstick, in turns with the claims, is the commit of one row that is found by its
primary key, as durable. Goals: with 1 000 000 ended and 100 000 queued tasks a 99th percentile below 6 ms, and a median
within 1.3 times that of the smallest database of the same run.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.janitor import database_of, p99, seconds_of
from contract.claims import ClaimRequest
from contract.schemas import Assignment, Failure
from contract.statuses import Reason
from private_api.database import Database
from private_api.placement.task_claim import claim_task
from private_api.settings import YIELD_AFTER
from private_api.tasks.limits import SizeLimits
from private_api.tasks.settle import fail_task
from tests.filled import fill_with_ended_tasks, queue_beside_ended_tasks

GOAL_MS = 6.0
FLAT = 1.3
_WARM_UP = 20
_CONSUMER = "benchmark"
_SIZES = SizeLimits(1024**3, 1024**3, 10_000)


def main() -> None:
    """Print the times of claims beside their yardstick, for each database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ended", default="1000,1000000", help="finished tasks, of each database")
    parser.add_argument("--queued", default="1000,100000", help="tasks that wait, of each database")
    parser.add_argument("--claims", type=int, default=500)
    parser.add_argument("--database", choices=("postgres", "sqlite"), default="postgres")
    figures.add_option(parser)
    arguments = parser.parse_args()
    sizes = list(zip(_numbers(arguments.ended), _numbers(arguments.queued), strict=True))
    if any(queued < arguments.claims + _WARM_UP for _, queued in sizes):
        parser.error(f"every queue needs at least {arguments.claims + _WARM_UP} tasks")
    print(f"{arguments.database}, {arguments.claims} claims each")
    smallest_ms: float | None = None
    for ended, queued in sizes:
        with tempfile.TemporaryDirectory() as name, database_of(arguments.database, Path(name)) as database:
            fill_with_ended_tasks(database, ended)
            queue_beside_ended_tasks(database, queued, ended)
            claims, bare = measure(database, arguments.claims)
        median_ms = statistics.median(claims)
        smallest_ms = smallest_ms or median_ms
        print(
            f"{ended:>9} ended, {queued:>7} queued   claim p50 {median_ms:6.2f} ms, p99 {p99(claims):6.2f} ms"
            f"   bare p50 {statistics.median(bare):6.2f} ms, p99 {p99(bare):6.2f} ms"
            f"   {median_ms / statistics.median(bare):5.1f} times, {median_ms / smallest_ms:.2f} of the smallest",
            flush=True,
        )
        is_largest = len(sizes) > 1 and (ended, queued) == sizes[-1]
        found = report(claims, bare, ended + queued, flat=median_ms / smallest_ms if is_largest else None)
        figures.record(arguments.json, *found)


def _numbers(given: str) -> list[int]:
    return [int(each) for each in given.split(",")]


def measure(database: Database, count: int) -> tuple[list[float], list[float]]:
    """The milliseconds of each claim and of each bare commit, in turns."""
    with database.write() as session:
        session.connection().exec_driver_sql("CREATE TABLE bare (id integer PRIMARY KEY, n integer)")
        session.connection().exec_driver_sql("INSERT INTO bare SELECT n, 0 FROM (SELECT id AS n FROM tasks) AS ids")
    claims: list[float] = []
    bare: list[float] = []
    for turn in range(count + _WARM_UP):
        taken: list[Assignment] = []
        claim_s = seconds_of(lambda into=taken, number=turn: into.append(_claim(database, number)))
        bare_s = seconds_of(lambda: _commit_one_row(database))
        _end(database, taken[0])
        # The first ones open connections and compile statements.
        if turn >= _WARM_UP:
            claims.append(claim_s * 1000)
            bare.append(bare_s * 1000)
    return claims, bare


def _claim(database: Database, number: int) -> Assignment:
    request = ClaimRequest(consumer=_CONSUMER, host="benchmark", process="1", number=number, holds=[])
    taken = claim_task(database, request, _SIZES, YIELD_AFTER, owner=None)
    assert taken is not None, "the queue is empty"
    return taken


def _commit_one_row(database: Database) -> None:
    with database.engine.connect() as connection:
        connection.exec_driver_sql("UPDATE bare SET n = n + 1 WHERE id = 1")
        connection.commit()


def _end(database: Database, taken: Assignment) -> None:
    failure = Failure(consumer=_CONSUMER, reason=Reason.EXIT_CODE, detail="the benchmark's")
    fail_task(database, taken.uid, taken.fence, failure)


def report(claims: list[float], bare: list[float], rows: int, *, flat: float | None) -> list[Figure]:
    """The figures of one database; `flat` is the ratio of its median to that of the smallest."""
    median_ms, place = statistics.median(claims), {"along": "tasks", "at": rows}
    found = [
        figures.compared("a claim, p50", median_ms, "ms", statistics.median(bare), **place),
        figures.compared("a claim, p99", p99(claims), "ms", p99(bare), goal=figures.at_most(GOAL_MS), **place),
    ]
    if flat is not None:
        goal = figures.at_most(FLAT, "ratio")
        found.append(
            Figure("a claim among the most tasks, to the fewest", median_ms, "ms", median_ms / flat, flat, goal)
        )
    return found


if __name__ == "__main__":
    main()
