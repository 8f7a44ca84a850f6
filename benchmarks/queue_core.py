"""What the queue itself costs: one task after the other through a private API whose consumers run nothing.

    .venv/bin/python -m benchmarks.queue_core [--tasks 30] [--seconds 4] [--consumers 4]
        [--database postgres|sqlite] [--texts CALL] [--json FILE]

A client with a key submits, polls once and fetches; a consumer claims, fetches the input, asks whether it may begin,
beats twice, watches for a cancel, appends to the log, uploads and commits: all over HTTP, from this process. First
`--tasks` lives, one by one, count statements, round trips and commits by kind of call; then `--consumers` threads live
side by side for `--seconds`. The yardstick of that rate is a bare loop of durable inserts of one row. The rate of the
rules is that of the same lives without HTTP. Goals: 25 round trips a task; 250 tasks/s by the rules.
"""

import argparse
import hashlib
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from benchmarks import figures
from benchmarks.janitor import create_table, database_of, insert
from contract.access import Caller, Scope
from contract.claims import ClaimRequest
from contract.heartbeats import Heartbeat
from contract.queries import ModelRegistration
from contract.schemas import Commit, ConsumerRegistration
from contract.statuses import Phase
from private_api.archives import ArchiveStore, StoredArchive
from private_api.database import Database
from private_api.keys import create_key
from private_api.models import register_model
from private_api.placement.consumers import register_consumer
from private_api.placement.outlook import find_output
from private_api.placement.task_claim import claim_task
from private_api.settings import YIELD_AFTER
from private_api.task_logs import TaskLogs
from private_api.tasks.attempts import beat_task
from private_api.tasks.limits import SizeLimits
from private_api.tasks.settle import commit_output, keep_output
from private_api.tasks.submit import submit_task
from tests.running_api import RunningApi, run_private_api
from tests.statement_counts import LOOPS, Asked, counted
from tests.task_life import INPUT, KINDS, OUTPUT, TaskLife

GOAL_TRIPS, GOAL_RATE = 25, 250
MODEL = "queue-core"
OWNER = "benchmark"
_SIZES = SizeLimits(max_unpacked_bytes=1024**3, max_output_bytes=1024**3)


def main() -> None:
    """Print counts and rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--consumers", type=int, default=4)
    parser.add_argument("--database", choices=("postgres", "sqlite"), default="postgres")
    parser.add_argument("--texts", choices=(*KINDS, LOOPS), help="Print the statements of one such call, too.")
    figures.add_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, database_of(arguments.database, Path(name)) as database:
        create_table(database)
        folder, caller = Path(name), Caller(OWNER, frozenset({Scope.SUBMIT}))
        store, logs = ArchiveStore(folder / "rules"), TaskLogs(folder / "rules-logs")
        register_model(database, store, ModelRegistration(human_readable_id=MODEL, container_tag="e:1"), None, caller)
        key = create_key(database, owner=OWNER, scopes=[Scope.SUBMIT], lifetime=None)
        # Each insert by a thread of as many, as the tasks are.
        bare = rate_of(lambda _: lambda: insert(database), arguments.consumers, arguments.seconds)
        with run_private_api(database.url, folder / "data") as api, ExitStack() as stack:
            with counted() as asked:
                life = make_life(api, stack, key, "counted", folder)
                life.live(MODEL)
                reset(asked)
                life.by = asked.by
                for _ in range(arguments.tasks):
                    life.live(MODEL)
            trips = say_counts(asked, arguments.tasks)
            lives = [make_life(api, stack, key, f"side-{each}", folder) for each in range(arguments.consumers)]
            over_http = rate_of(lambda each: lambda: lives[each].live(MODEL), arguments.consumers, arguments.seconds)

        def driven(each: int) -> Callable[[], None]:
            return drive_rules(database, store, logs, caller, f"rules-{each}")

        by_rules = rate_of(driven, arguments.consumers, arguments.seconds)
    say_rate("a bare durable insert of one row", bare, bare)
    say_rate("tasks over HTTP, client and server in one process", over_http, bare)
    say_rate(f"tasks by the rules (goal: {GOAL_RATE}/s)", by_rules, bare)
    rate = figures.compared("tasks by the rules", by_rules, "/s", bare, goal=figures.at_least(GOAL_RATE))
    over = figures.compared("tasks over HTTP", over_http, "/s", bare)
    asking = figures.Figure("round trips of a task", trips, "", goal=figures.at_most(GOAL_TRIPS))
    figures.record(arguments.json, rate, over, asking)
    if arguments.texts:
        say_texts(asked, arguments.texts)


def make_life(api: RunningApi, stack: ExitStack, key: str, name: str, folder: Path) -> TaskLife:
    """A client and a consumer that is registered."""
    life = TaskLife(stack.enter_context(api.client()), stack.enter_context(api.consumer()), key, name, folder)
    life.register()
    return life


def reset(asked: Asked) -> None:
    """Forget what the first life asked, which warms up what is kept."""
    for counter in (asked.statements, asked.round_trips, asked.commits, asked.texts):
        counter.clear()


def say_counts(asked: Asked, tasks: int) -> float:
    """Print a row for each kind of call, of one task. Returns how many round trips it takes."""
    print(f"{'per task':10} {'statements':>10} {'round trips':>12} {'commits':>8}")
    counters = asked.statements, asked.round_trips, asked.commits
    for kind in (*KINDS, LOOPS):
        found = [counter[kind] / tasks for counter in counters]
        print(f"{kind:10} {found[0]:10.1f} {found[1]:12.1f} {found[2]:8.1f}")
    total = [(counter.total() - counter[LOOPS]) / tasks for counter in counters]
    goal = f"   (goal: at most {GOAL_TRIPS} round trips)"
    print(f"{'all calls':10} {total[0]:10.1f} {total[1]:12.1f} {total[2]:8.1f}{goal}", flush=True)
    return total[1]


def say_rate(what: str, rate: float, bare: float) -> None:
    """Print one row."""
    print(f"{what:52} {rate:8.1f}/s   {rate / bare:.3f} of the yardstick")


def say_texts(asked: Asked, kind: str) -> None:
    """Print what was asked by the last call of a kind, or by what loops did of late."""
    texts = [text for each, text in asked.texts if each == kind]
    for text in texts[-20:]:
        print("---", " ".join(text.split())[:2000])


def rate_of(make: Callable[[int], Callable[[], object]], width: int, seconds: float) -> float:
    """How often per second threads do it, each one its own."""
    done = [0] * width
    ends_at = time.monotonic() + seconds
    works = [make(each) for each in range(width)]

    def work(each: int) -> None:
        while time.monotonic() < ends_at:
            works[each]()
            done[each] += 1

    threads = [threading.Thread(target=work, args=(each,)) for each in range(width)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - began)


def drive_rules(
    database: Database, store: ArchiveStore, logs: TaskLogs, caller: Caller, name: str
) -> Callable[[], None]:
    """A life of a task by the rules alone: submit, claim, two beats, upload, commit, fetch."""
    register_consumer(database, ConsumerRegistration(consumer=name, process=name), owner=None)
    numbers = count(1)

    def keep(data: bytes, use: Callable[..., object]) -> object:
        upload = store.open_upload(None)
        try:
            upload.write(data)
            return use(upload)
        finally:
            upload.discard()

    def live() -> None:
        keep(
            INPUT,
            lambda upload: submit_task(database, store, upload, reference=MODEL, idempotency_key=None, caller=caller),
        )
        request = ClaimRequest(consumer=name, process=name, number=next(numbers), holds=[], replica_slots=8)
        held = claim_task(database, request, _SIZES, YIELD_AFTER, owner=None)
        if held is None:
            return
        for phase in (Phase.RUNNING, Phase.DELIVERING):
            beat_task(database, held.uid, held.fence, Heartbeat(consumer=name, phase=phase))
        keep(OUTPUT, lambda upload: keep_output(store, upload, held.uid, held.fence))
        commit = Commit(consumer=name, sha256=hashlib.sha256(OUTPUT).hexdigest(), size_bytes=len(OUTPUT))
        commit_output(database, store, held.uid, held.fence, commit)
        found: StoredArchive = find_output(database, store, logs, held.uid, caller)
        assert found.sha256 == commit.sha256

    return live


if __name__ == "__main__":
    main()
