"""Any order of events, on a real PostgreSQL: the database must agree with a small model after every one of them.

Holders are never retired, so every beat, commit, failure and release may come from a zombie with an old fence.
"""

import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
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
from private_api.database import Database
from private_api.dispatcher import Dispatcher
from private_api.janitor import Janitor
from private_api.tables import TaskRow
from private_api.task_logs import TaskLogs
from private_api.tasks.cancel import cancel_task, delete_task
from private_api.tasks.limits import AMNESTY_AFTER, DEADLINE_GRACE, LEASE, MAX_CRASHES
from tests.integration.task_bench import GPU, Bench
from tests.integration.task_model import TaskModel

Consumer = tuple[str, str | None, bool]
"""Name, GPU, and whether it takes CPU tasks too."""
PATIENT = timedelta(days=3650)
CONSUMERS = st.sampled_from([("both", GPU, True), ("cpu", None, True), ("gpu", GPU, False)])
SECONDS = st.sampled_from([110, 45, 700, 8000])
"""Multiples of 5, like every limit: the milliseconds between two looks at the clock never decide what is due."""
ACTIONS = [
    *(("beat", phase) for phase in Phase),
    *(("release", blameless) for blameless in (False, True)),
    *(("commit", data) for data in (b"one", b"two")),
    *(("fail", reason) for reason in (Reason.EXIT_CODE, Reason.CANCELLED)),
]


class TaskRules(RuleBasedStateMachine):
    """Every rule does to the database and to the model the same thing."""

    tasks = Bundle("tasks")
    claims = Bundle("claims")

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.broker = InMemoryBroker()
        self.dispatcher = Dispatcher(bench.database, self.broker)
        self.models: dict[str, TaskModel] = {}
        self.ended: dict[str, tuple[object, ...]] = {}

    @property
    def has_queued(self) -> bool:
        return any(task.status is Status.QUEUED for task in self.models.values())

    @initialize(target=tasks)
    def begin(self) -> object:
        """An empty database, and a task of each kind: Hypothesis leaves rules out at random, `submit` among them."""
        with self.bench.database.engine.begin() as connection:
            tables = "tasks, models, model_versions, archives, attempts, events, outbox, consumers, loop_heartbeats"
            connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
        self.bench.register("small", time_limit_s=600)
        self.bench.register("big", time_limit_s=600, use_gpu=True)
        self.bench.reap(PATIENT)
        return multiple(self.submit(use_gpu=False, with_key=True), self.submit(use_gpu=True, with_key=False))

    @rule(target=tasks, use_gpu=st.booleans(), with_key=st.booleans())
    def submit(self, use_gpu: bool, with_key: bool) -> str:
        key = secrets.token_hex(8) if with_key else None
        model = "big" if use_gpu else "small"
        uid = self.bench.submit(model, key=key)
        assert uid not in self.models
        self.models[uid] = TaskModel(use_gpu, key)
        return uid

    @rule(uid=tasks)
    def submit_again(self, uid: str) -> None:
        task = self.models[uid]
        if task.key is not None:
            model = "big" if task.use_gpu else "small"
            assert self.bench.submit(model, key=task.key) == uid
            with pytest.raises(IdempotencyConflict):
                self.bench.submit(model, key=task.key, files={"a.txt": b"other"})

    @precondition(lambda self: self.has_queued)
    @rule(target=claims, who=CONSUMERS, bell=st.sampled_from(["heard", "doubled", "lost", "unheard"]))
    def claim(self, who: Consumer, bell: str) -> object:
        """A consumer claims by a bell, or by a poll where no bell reached it."""
        self.dispatcher.step()
        queues = ([GPU_QUEUE] if who[1] else []) + ([CPU_QUEUE] if who[2] else [])
        delivery = None if bell == "unheard" else self.broker.receive(queues, 0)
        if delivery is None:
            return self.claim_next(who, None)
        delivery.ack()
        if bell == "doubled":
            self.broker.publish(GPU_QUEUE if self.models[delivery.uid].use_gpu else CPU_QUEUE, delivery.uid)
        return self.claim_next(who, None if bell == "lost" else delivery.uid)

    @rule(claim=claims, action=st.sampled_from(ACTIONS))
    def act_as_holder(self, claim: Assignment, action: tuple[str, Any]) -> None:
        """The holder, or one that was it once, reports."""
        getattr(self, action[0])(claim, action[1])

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

    @rule(uid=tasks, deletes=st.booleans())
    def act_as_owner(self, uid: str, deletes: bool) -> None:
        """The owner deletes or cancels."""
        if deletes:
            delete_task(self.bench.database, uid)
            self.models[uid].delete()
        elif self.models[uid].is_deleted:
            with pytest.raises(TaskNotFound):
                cancel_task(self.bench.database, uid)
        else:
            cancel_task(self.bench.database, uid)
            self.models[uid].cancel()

    @rule(seconds=SECONDS, away=st.sampled_from([False, False, True]))
    def pass_time(self, seconds: int, away: bool) -> None:
        """Time passes, and the server's own loops run; where it was away, they first give holders a fresh lease."""
        self.shift_time(seconds)
        if away:
            self.bench.shift_reaper(-AMNESTY_AFTER - timedelta(seconds=1))
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
        Janitor(self.bench.database, self.bench.store, self.bench.logs, keep_finished_for=PATIENT).step()
        for row in self.bench.rows()[1].values():
            assert row.lease_until is None or row.lease_until > now

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
        for _ in range(3):
            while isinstance(claim := self.claim_next(("both", GPU, True), None), Assignment):
                self.commit(claim, b"drained")
            self.pass_time(700, away=False)
        assert [task.status for task in self.models.values() if not task.is_terminal] == []
        self.the_database_agrees_with_the_model()

    def shift_time(self, seconds: int) -> None:
        moments = ", ".join(f"{name} = {name} - :by" for name in ("lease_until", "deadline_at", "not_before"))
        with self.bench.database.engine.begin() as connection:
            connection.execute(text(f"UPDATE tasks SET {moments}"), {"by": timedelta(seconds=seconds)})  # noqa: S608
            connection.execute(text("UPDATE outbox SET due_at = due_at - :by"), {"by": timedelta(seconds=seconds)})

    def claim_next(self, who: Consumer, uid: str | None) -> object:
        now, rows = self.bench.rows()
        kinds = ([True] if who[1] else []) + ([False] if who[2] else [])
        due = [row for row in rows.values() if row.status == Status.QUEUED and row.not_before <= now]
        fit = sorted(
            (row for row in due if row.use_gpu in kinds), key=lambda row: (not row.use_gpu, row.not_before, row.id)
        )
        expected = uid if uid in [row.uid for row in fit] else next((row.uid for row in fit), None)
        claim = self.bench.try_claim(who[0], gpu=who[1], cpu=who[2], uid=uid)
        assert (claim.uid if claim else None) == expected
        if claim is None:
            return multiple()
        task = self.models[claim.uid]
        old_fence = task.fence
        task.claim()
        assert (claim.fence, claim.attempt) == (task.fence, task.attempts)
        assert claim.fence > old_fence
        return claim

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


def test_every_order_of_events_keeps_the_promises(postgres_url: str, store: ArchiveStore, logs: TaskLogs) -> None:
    database = Database(postgres_url)
    try:
        run_state_machine_as_test(lambda: TaskRules(Bench(database, store, logs)))
    finally:
        database.close()
