"""Any order of events, on a real PostgreSQL: the database must agree with a small model after every one of them.

Holders are never retired, so every beat, commit, failure and release may come from a zombie with an old fence.
"""

import secrets
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from contract.broker import CPU_QUEUE, GPU_QUEUE
from contract.errors import IdempotencyConflict, StaleFence, TaskNotFound
from contract.memory_broker import InMemoryBroker
from contract.schemas import Assignment, Settled
from contract.statuses import Phase, Reason, Status
from private_api.archives import ArchiveStore
from private_api.callers import ANONYMOUS, Caller
from private_api.database import Database
from private_api.dispatcher import Dispatcher
from private_api.janitor import Janitor
from private_api.tables import Base, TaskRow
from private_api.task_logs import TaskLogs
from private_api.tasks.cancel import cancel_task, delete_task
from private_api.tasks.limits import AMNESTY_AFTER, DEADLINE_GRACE, LEASE, MAX_CRASHES
from tests.integration.task_bench import GPU, Bench
from tests.integration.task_model import TaskModel

Consumer = tuple[str, str | None, bool]
"""Name, GPU, and whether it takes CPU tasks too."""
PATIENT = timedelta(days=3650)
PATIENT = timedelta(days=3650)
Consumer = tuple[str, str | None, bool]
"""Name, GPU, and whether it takes CPU tasks too."""
CONSUMERS = st.sampled_from([("both", GPU, True), ("cpu", None, True), ("gpu", GPU, False)])
SECONDS = st.sampled_from([110, 110, 45, 700, 8000])
"""Multiples of 5, like every limit: the milliseconds between two looks at the clock never decide what is due."""
NTH = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 5, 8])
"""Which task or claim, counted from the newest."""


class Kind(NamedTuple):
    """A kind of step: how often it happens beside the others, and the arguments of the machine's method."""

    weight: int
    arguments: tuple[st.SearchStrategy[Any], ...]


# One rule over a table, because Hypothesis leaves rules out at random: with ten of them most runs would have no claim,
# no passing of time, or nobody who reports.
KINDS = {
    "claim": Kind(6, (CONSUMERS, st.sampled_from(["heard", "doubled", "lost", "unheard"]))),
    "beat": Kind(4, (NTH, st.sampled_from(Phase))),
    "pass_time": Kind(6, (SECONDS, st.sampled_from([False, False, True]))),
    "release": Kind(2, (NTH, st.booleans())),
    "commit": Kind(4, (NTH, st.sampled_from([b"one", b"two"]))),
    "fail": Kind(1, (NTH, st.sampled_from([Reason.EXIT_CODE, Reason.CANCELLED]))),
    "submit": Kind(2, (st.booleans(), st.booleans())),
    "submit_again": Kind(1, (NTH, st.booleans())),
    "end": Kind(3, (NTH, st.sampled_from([cancel_task, delete_task]))),
}
STEPS = st.sampled_from([name for name, kind in KINDS.items() for _ in range(kind.weight)]).flatmap(
    lambda name: st.tuples(st.just(name), *KINDS[name].arguments)
)


class TaskRules(RuleBasedStateMachine):
    """Every rule does to the database and to the model the same thing."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.broker = InMemoryBroker()
        self.dispatcher = Dispatcher(bench.database, self.broker)
        self.models: dict[str, TaskModel] = {}
        self.claims: list[Assignment] = []
        """All that ever were: a report may come from a zombie."""
        self.ended: dict[str, tuple[object, ...]] = {}

    @initialize()
    def begin(self) -> None:
        empty_database(self.bench.database)
        self.bench.register("small", time_limit_s=600)
        self.bench.register("big", time_limit_s=600, use_gpu=True)
        self.bench.reap(PATIENT)
        self.submit(use_gpu=False, with_key=True)
        self.submit(use_gpu=True, with_key=False)

    @rule(step=STEPS)
    def happens(self, step: tuple[Any, ...]) -> None:
        name, *arguments = step
        pools: dict[str, list[Any]] = {
            **dict.fromkeys(["beat", "commit", "fail", "release"], self.claims),
            "submit_again": list(self.models),
            "end": [*self.models, *(claim.uid for claim in self.claims)],
        }
        if name in pools:
            if not pools[name]:
                return
            arguments[0] = pools[name][-1 - arguments[0] % len(pools[name])]
        getattr(self, name)(*arguments)

    def submit(self, use_gpu: bool, with_key: bool) -> None:
        key = secrets.token_hex(8) if with_key else None
        uid = self.bench.submit("big" if use_gpu else "small", key=key)
        assert uid not in self.models
        self.models[uid] = TaskModel(use_gpu, key)

    def submit_again(self, uid: str, changed: bool) -> None:
        task = self.models[uid]
        model = "big" if task.use_gpu else "small"
        if task.key is not None and changed:
            with pytest.raises(IdempotencyConflict):
                self.bench.submit(model, key=task.key, files={"a.txt": b"other"})
        elif task.key is not None:
            assert self.bench.submit(model, key=task.key) == uid

    def claim(self, who: Consumer, bell: str) -> None:
        """A consumer claims by a bell, or by a poll where no bell reached it."""
        self.dispatcher.step()
        queues = ([GPU_QUEUE] if who[1] else []) + ([CPU_QUEUE] if who[2] else [])
        delivery = None if bell == "unheard" else self.broker.receive(queues, 0)
        if delivery is not None:
            delivery.ack()
            if bell == "doubled":
                self.broker.publish(GPU_QUEUE if self.models[delivery.uid].use_gpu else CPU_QUEUE, delivery.uid)
        self.claim_next(who, None if delivery is None or bell == "lost" else delivery.uid)

    def beat(self, claim: Assignment, phase: Phase) -> None:
        task = self.models[claim.uid]
        if self._is_refused(claim, lambda: self.bench.beat(claim, phase)):
            return
        reply = self.bench.beat(claim, phase)
        task.beat(phase)
        assert reply.cancel == task.is_cancelled
        now, rows = self.bench.rows()
        lease = rows[claim.uid].lease_until
        assert lease is not None
        assert LEASE - timedelta(seconds=30) < lease - now <= LEASE

    def commit(self, claim: Assignment, data: bytes) -> None:
        task = self.models[claim.uid]
        commit = self.bench.upload(claim, data)
        if task.committed == (claim.fence, commit.sha256):
            assert self.bench.commit(claim, commit).status is Status.FINISHED
        elif not self._is_settled_already(claim, lambda: self.bench.commit(claim, commit)):
            assert self.bench.commit(claim, commit).status is task.commit(claim.fence, commit.sha256)

    def fail(self, claim: Assignment, reason: Reason) -> None:
        task = self.models[claim.uid]
        if task.status is Status.FAILED and task.fence == claim.fence and task.reason is reason:
            assert self.bench.fail(claim, reason).status is Status.FAILED
        elif not self._is_settled_already(claim, lambda: self.bench.fail(claim, reason)):
            assert self.bench.fail(claim, reason).status is task.fail(reason)

    def release(self, claim: Assignment, blameless: bool) -> None:
        if not self._is_refused(claim, lambda: self.bench.release(claim, blameless=blameless)):
            expected = self.models[claim.uid].release(blameless=blameless)
            assert self.bench.release(claim, blameless=blameless).status is expected

    def end(self, uid: str, action: Callable[[Database, str, Caller], None]) -> None:
        """The owner cancels or deletes."""
        task = self.models[uid]
        if action is cancel_task and task.is_deleted:
            with pytest.raises(TaskNotFound):
                action(self.bench.database, uid, ANONYMOUS)
            return
        action(self.bench.database, uid, ANONYMOUS)
        task.cancel() if action is cancel_task else task.delete()

    def pass_time(self, seconds: int, away: bool) -> None:
        """Time passes, and the server's own loops run; where it was away, they first give holders a fresh lease."""
        self.shift_time(seconds)
        self.bench.set_reaper(AMNESTY_AFTER + timedelta(seconds=1) if away else timedelta())
        now, rows = self.bench.rows()
        for uid, task in self.models.items():
            row = rows[uid]
            if not task.is_held or away:
                continue
            if row.deadline_at is not None and row.deadline_at < now - DEADLINE_GRACE:
                task.overstay()
            elif row.lease_until is not None and row.lease_until < now:
                task.lose_lease()
        self.bench.reap(PATIENT)
        if away:
            now, rows = self.bench.rows()
            assert all(row.lease_until is None or row.lease_until > now for row in rows.values())
            Janitor(self.bench.database, self.bench.store, self.bench.logs, keep_finished_for=PATIENT).step()

    @invariant()
    def the_database_agrees_with_the_model(self) -> None:
        _, rows = self.bench.rows()
        self.check_rows(rows)
        assert set(rows) == set(self.models), "a task was lost, or came from nowhere"
        events = self.bench.all_events()
        for uid, task in self.models.items():
            row = rows[uid]
            assert (row.status, row.reason) == (task.status, task.reason)
            assert (row.fence, row.attempts) == (task.fence, task.attempts)
            assert (row.crashes, row.infrastructure_failures) == (task.crashes, task.infrastructure_failures)
            assert (row.cancel_at is not None, row.deleted_at is not None) == (task.is_cancelled, task.is_deleted)
            assert events[uid] == task.statuses, "not exactly one event for each change of status"

    def check_rows(self, rows: dict[str, TaskRow]) -> None:
        for uid, row in rows.items():
            status = Status(row.status)
            assert status.is_held == (row.lease_owner is not None) == (row.lease_until is not None)
            assert row.crashes <= MAX_CRASHES
            if row.output is not None:
                assert row.output.key == f"outputs/{uid}/{row.fence}-{row.output.sha256}.zip"
            if status is Status.QUEUED:
                assert row.cancel_at is None
                assert self.bench.store.path(row.input.key).is_file()
            if status.is_terminal:
                outcome = (row.status, row.fence, row.output_id, row.reason, row.detail, row.exit_code, row.ended_at)
                assert self.ended.setdefault(uid, outcome) == outcome, "a task that had ended changed"

    def teardown(self) -> None:
        """Everything ends by polls alone, however many bells were lost."""
        for _ in range(2):
            while self.claim_next(("both", GPU, True), None):
                self.commit(self.claims[-1], b"drained")
            self.pass_time(700, away=False)
        assert [task.status for task in self.models.values() if not task.is_terminal] == []
        self.the_database_agrees_with_the_model()

    def shift_time(self, seconds: int) -> None:
        moments = ", ".join(f"{name} = {name} - :by" for name in ("lease_until", "deadline_at", "not_before"))
        with self.bench.database.engine.begin() as connection:
            connection.execute(text(f"UPDATE tasks SET {moments}"), {"by": timedelta(seconds=seconds)})  # noqa: S608
            connection.execute(text("UPDATE outbox SET due_at = due_at - :by"), {"by": timedelta(seconds=seconds)})

    def claim_next(self, who: Consumer, uid: str | None) -> bool:
        """Whether there was something to claim; it must be the task that the model expects."""
        now, rows = self.bench.rows()
        due = [row for row in rows.values() if row.status == Status.QUEUED and row.not_before <= now]
        fit = [row for row in due if (who[1] if row.use_gpu else who[2])]
        best = min(fit, key=lambda row: (not row.use_gpu, row.not_before, row.id), default=None)
        expected = uid if uid in {row.uid for row in fit} else best.uid if best else None
        claim = self.bench.try_claim(who[0], gpu=who[1], cpu=who[2], uid=uid)
        assert (claim.uid if claim else None) == expected
        if claim is None:
            return False
        task = self.models[claim.uid]
        task.claim()
        assert (claim.fence, claim.attempt) == (task.fence, task.attempts)
        self.claims.append(claim)
        return True

    def _is_refused(self, claim: Assignment, action: Callable[[], object]) -> bool:
        """Whether the claim no longer holds its task; then the action must be refused."""
        if self.models[claim.uid].is_held_under(claim.fence):
            return False
        with pytest.raises(StaleFence):
            action()
        return True

    def _is_settled_already(self, claim: Assignment, action: Callable[[], Settled]) -> bool:
        task = self.models[claim.uid]
        if task.status is Status.CANCELLED and task.fence == claim.fence:
            assert action().status is Status.CANCELLED
            return True
        return self._is_refused(claim, action)


def empty_database(database: Database) -> None:
    with database.engine.begin() as connection:
        # Past the triggers that keep history: a fresh database for each of hundreds of runs would take minutes.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for table in Base.metadata.tables.values():
            connection.execute(table.delete())


@pytest.fixture
def fast_store() -> Iterator[ArchiveStore]:
    """In memory where there is such a place: this test is about the database, and waits for no disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield ArchiveStore(Path(folder))


@pytest.mark.timeout(1800)
def test_every_order_of_events_keeps_the_promises(postgres_url: str, fast_store: ArchiveStore, logs: TaskLogs) -> None:
    database = Database(postgres_url)
    try:
        run_state_machine_as_test(lambda: TaskRules(Bench(database, fast_store, logs)))
    finally:
        database.close()
