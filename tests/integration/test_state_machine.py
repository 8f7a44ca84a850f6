"""Any order of events, on a real PostgreSQL: the database must agree with a small model after every one of them.

Holders are never retired, so every beat, commit, failure and release may come from a zombie with an old fence.
"""

import itertools
import secrets
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, text

from contract.access import ANONYMOUS, Caller
from contract.broker import CPU_QUEUE, GPU_QUEUE
from contract.broker.memory import InMemoryBroker
from contract.claims import HeldAttempt
from contract.errors import IdempotencyConflict, StaleFence, TaskNotFound
from contract.schemas import Assignment, Settled
from contract.statuses import Phase, Reason, Status
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.leases import AMNESTY_AFTER, LEASE
from private_api.loops.clock import look_at_clock
from private_api.loops.dispatcher import Dispatcher
from private_api.loops.janitor import Janitor
from private_api.tables import ConsumerRow, TaskRow
from private_api.task_logs import TaskLogs
from private_api.tasks.cancel import cancel_task
from private_api.tasks.limits import DEADLINE_GRACE, MAX_CRASHES, MOST_FAILURES
from tests.examples import FEW_OR_ALL, fewer
from tests.integration.task_harness import GPU, Harness, SetClock
from tests.integration.task_model import TaskModel
from tests.integration.task_steps import PATIENT, STEPS, Consumer, empty_database


class TaskRules(RuleBasedStateMachine):
    """Every rule does to the database and to the model the same thing."""

    def __init__(self, harness: Harness) -> None:
        super().__init__()
        self.harness = harness
        self.broker = InMemoryBroker()
        self.dispatcher = Dispatcher(harness.database, self.broker)
        self.models: dict[str, TaskModel] = {}
        self.claims: list[Assignment] = []
        """All that ever were: a report may come from a zombie."""
        self.ended: dict[str, tuple[object, ...]] = {}
        self.numbers = itertools.count(1)
        self.processes = {"both": "a process", "cpu": "another process"}
        """The third consumer is of a release that says nothing of its process."""

    @initialize()
    def begin(self) -> None:
        empty_database(self.harness.database)
        self.harness.register("small", time_limit_s=600)
        self.harness.register("big", time_limit_s=600, use_gpu=True)
        self.harness.reap(PATIENT)
        for name, process in self.processes.items():
            self.harness.start(name, process, gpu=GPU if name == "both" else None)
        self.submit(use_gpu=False, with_key=True)
        self.submit(use_gpu=True, with_key=False)

    @rule(step=STEPS)
    def happens(self, step: tuple[Any, ...]) -> None:
        name, *arguments = step
        pools: dict[str, list[Any]] = {
            **dict.fromkeys(["begin_ahead", "beat", "commit", "fail", "release"], self.claims),
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
        uid = self.harness.submit("big" if use_gpu else "small", key=key)
        assert uid not in self.models
        self.models[uid] = TaskModel(use_gpu, key)

    def submit_again(self, uid: str, changed: bool) -> None:
        task = self.models[uid]
        model = "big" if task.use_gpu else "small"
        if task.key is not None and self.harness.rows()[1][uid].forgotten_at is not None:
            # A tombstone has lost its key, which stands for a new task from here on.
            new = self.harness.submit(model, key=task.key)
            assert new not in self.models
            self.models[new], task.key = TaskModel(task.use_gpu, task.key), None
        elif task.key is not None and changed:
            with pytest.raises(IdempotencyConflict):
                self.harness.submit(model, key=task.key, files={"a.txt": b"other"})
        elif task.key is not None:
            assert self.harness.submit(model, key=task.key) == uid

    def claim(self, who: Consumer, bell: str, says: str) -> None:
        """A consumer claims by a bell, or by a poll where no bell reached it."""
        self.dispatcher.step()
        queues = ([GPU_QUEUE] if who[1] else []) + ([CPU_QUEUE] if who[2] else [])
        delivery = None if bell == "unheard" else self.broker.receive(queues, 0)
        if delivery is not None:
            delivery.ack()
            if bell == "doubled":
                self.broker.publish(GPU_QUEUE if self.models[delivery.uid].use_gpu else CPU_QUEUE, delivery.uid)
        self.claim_next(who, None if delivery is None or bell == "lost" else delivery.uid, says)

    def prepare(self, who: Consumer) -> None:
        """A consumer that runs a task would prepare the next one of a kind."""
        now, rows = self.harness.rows()
        due = [row for uid, row in rows.items() if self.models[uid].status is Status.QUEUED and row.not_before <= now]
        claim = self.try_claim(who, None, ahead=True)
        if claim is None:
            return
        of_its_kind = [row for row in due if row.use_gpu == claim.use_gpu]
        assert claim.uid == min(of_its_kind, key=lambda row: (row.not_before, row.id)).uid
        assert claim.is_ahead
        task = self.models[claim.uid]
        assert not any(other.is_ahead and other.is_held and other.holder == who[0] for other in self.models.values())
        task.claim(who[0], ahead=True)
        self.claims.append(claim)

    def begin_ahead(self, claim: Assignment) -> None:
        if not self._is_refused(claim, lambda: self.harness.begin(claim)):
            assert self.harness.begin(claim).status is self.models[claim.uid].status
            self.models[claim.uid].is_ahead = False

    def beat(self, claim: Assignment, phase: Phase) -> None:
        task = self.models[claim.uid]
        if self._is_refused(claim, lambda: self.harness.beat(claim, phase)):
            return
        before = self.harness.now()
        reply = self.harness.beat(claim, phase)
        task.beat(phase)
        assert reply.cancel == task.is_cancelled
        now, rows = self.harness.rows()
        lease = rows[claim.uid].lease_until
        assert lease is not None
        assert before + LEASE <= lease <= now + LEASE

    def commit(self, claim: Assignment, data: bytes) -> None:
        task = self.models[claim.uid]
        commit = self.harness.upload(claim, data)
        if task.committed == (claim.fence, commit.sha256):
            assert self.harness.commit(claim, commit).status is Status.FINISHED
        elif not self._is_settled_already(claim, lambda: self.harness.commit(claim, commit)):
            assert self.harness.commit(claim, commit).status is task.commit(claim.fence, commit.sha256)

    def fail(self, claim: Assignment, reason: Reason) -> None:
        task = self.models[claim.uid]
        if task.status is Status.FAILED and task.fence == claim.fence and task.reason is reason:
            assert self.harness.fail(claim, reason).status is Status.FAILED
        elif not self._is_settled_already(claim, lambda: self.harness.fail(claim, reason)):
            assert self.harness.fail(claim, reason).status is task.fail(reason)

    def release(self, claim: Assignment, blameless: bool) -> None:
        if not self._is_refused(claim, lambda: self.harness.release(claim, blameless=blameless)):
            task = self.models[claim.uid]
            expected = task.release(self.there(use_gpu=task.use_gpu), blameless=blameless)
            assert self.harness.release(claim, blameless=blameless).status is expected

    def end(self, uid: str, action: Callable[[Database, str, Caller], None]) -> None:
        """The owner cancels or deletes."""
        task = self.models[uid]
        if action is cancel_task and task.is_deleted:
            with pytest.raises(TaskNotFound):
                action(self.harness.database, uid, ANONYMOUS)
            return
        action(self.harness.database, uid, ANONYMOUS)
        task.cancel() if action is cancel_task else task.delete()

    def pass_time(self, seconds: int, away: bool) -> None:
        """Time passes, and the server's own loops run; where it was away, they first give holders a fresh lease."""
        self.shift_time(seconds)
        # All the time, so that a deadline that passed meanwhile is given back whole.
        longest = max(timedelta(seconds=seconds), AMNESTY_AFTER + timedelta(seconds=1))
        self.harness.set_reaper(longest if away else timedelta())
        now, rows = self.harness.rows()
        for uid, task in self.models.items():
            row = rows[uid]
            if not task.is_held or away:
                continue
            if row.deadline_at is not None and row.deadline_at < now - DEADLINE_GRACE:
                task.overstay()
            elif row.lease_until is not None and row.lease_until < now:
                task.lose_lease(self.there(use_gpu=task.use_gpu))
        self.harness.reap(PATIENT)
        if away:
            now, rows = self.harness.rows()
            assert all(row.lease_until is None or row.lease_until > now for row in rows.values())
            Janitor(self.harness.database, self.harness.store, self.harness.logs, keep_finished_for=PATIENT).step()

    def set_clock(self, seconds: int, back: bool) -> None:
        """The database's clock is set; nothing happens to any task."""
        database = self.harness.database
        assert isinstance(database, SetClock)
        look_at_clock(database)
        database.offset += timedelta(seconds=-seconds if back else seconds)
        assert self.harness.reap(PATIENT) == []

    @invariant()
    def the_database_agrees_with_the_model(self) -> None:
        _, rows = self.harness.rows()
        self.check_rows(rows)
        assert set(rows) == set(self.models), "a task was lost, or came from nowhere"
        events = self.harness.all_events()
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
            assert 0 <= row.crashes <= MAX_CRASHES * MOST_FAILURES
            if row.output is not None:
                assert row.output.key == f"outputs/{uid}/{row.fence}-{row.output.sha256}.zip"
            if status is Status.QUEUED:
                assert row.cancel_at is None
                assert self.harness.store.path(row.input.key).is_file()
            if status.is_terminal:
                outcome = (row.status, row.fence, row.output_id, row.reason, row.exit_code, row.ended_at, row.detail)
                # A tombstone has lost its detail, and nothing else.
                kept = outcome[:-1] if row.forgotten_at else outcome
                assert self.ended.setdefault(uid, outcome)[: len(kept)] == kept, "a task that had ended changed"
                assert row.forgotten_at is None or (row.deleted_at is not None and row.detail is None)

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
        with self.harness.database.engine.begin() as connection:
            connection.execute(text(f"UPDATE tasks SET {moments}"), {"by": timedelta(seconds=seconds)})  # noqa: S608
            for moment in ("outbox SET due_at = due_at", "consumers SET seen_at = seen_at"):
                connection.execute(text(f"UPDATE {moment} - :by"), {"by": timedelta(seconds=seconds)})

    def there(self, *, use_gpu: bool) -> set[str]:
        """The consumers that could run a task of this kind now."""
        with self.harness.database.read() as session:
            seen = ConsumerRow.seen_at > self.harness.database.now(session) - LEASE
            kind = ConsumerRow.gpu_uuid.is_not(None) if use_gpu else ConsumerRow.accepts_cpu_tasks
            return set(session.scalars(select(ConsumerRow.name).where(seen, kind)))

    def claim_next(self, who: Consumer, uid: str | None, says: str = "nothing") -> bool:
        """Whether there was something to claim; it must be the task that the model expects."""
        if says == "late" and who[0] in self.processes:
            assert self.try_claim(who, uid, number=0, holds=[]) is None
            return False
        said: dict[str, Any] = {}
        if says in ("all", "none") and who[0] in self.processes:
            named = [claim for claim in self.claims if says == "all"]
            said = {"number": next(self.numbers), "holds": [HeldAttempt(uid=c.uid, fence=c.fence) for c in named]}
            for task in self.models.values():
                if task.holder == who[0] and says == "none":
                    task.give_back()
        now, rows = self.harness.rows()
        due = [row for uid, row in rows.items() if self.models[uid].status is Status.QUEUED and row.not_before <= now]
        taken_over = [
            row for uid, row in rows.items() if self.models[uid].may_be_taken_by(who[0]) and row.not_before <= now
        ]
        fit = [row for row in (*due, *taken_over) if (who[1] if row.use_gpu else who[2])]
        best = min(fit, key=lambda row: (not row.use_gpu, row.not_before, row.id), default=None)
        if best in taken_over:
            expected = best.uid
            self.models[expected].give_back()
        else:
            expected = uid if uid in {row.uid for row in fit if row in due} else best.uid if best else None
        claim = self.try_claim(who, uid, **said)
        assert (claim.uid if claim else None) == expected
        if claim is None:
            return False
        task = self.models[claim.uid]
        task.claim(who[0])
        assert (claim.fence, claim.attempt) == (task.fence, task.attempts)
        self.claims.append(claim)
        return True

    def try_claim(self, who: Consumer, uid: str | None, **said: Any) -> Assignment | None:
        process: dict[str, Any] = {"process": self.processes[who[0]]} if "number" in said else {}
        return self.harness.try_claim(who[0], gpu=who[1], cpu=who[2], uid=uid, **process, **said)

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


@pytest.fixture
def fast_store() -> Iterator[ArchiveStore]:
    """In memory where there is such a place: this test is about the database, and waits for no disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield ArchiveStore(Path(folder))


@pytest.mark.timeout(1800)
@FEW_OR_ALL
def test_every_order_of_events_keeps_the_promises(
    share: int, postgres_url: str, fast_store: ArchiveStore, logs: TaskLogs
) -> None:
    database = SetClock(postgres_url)
    try:
        run_state_machine_as_test(lambda: TaskRules(Harness(database, fast_store, logs)), settings=fewer(share))
    finally:
        database.close()
