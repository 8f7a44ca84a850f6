"""Drives the rules of the private API as its routes do, and looks at the rows behind them.

Time is moved by shifting a row's moments back: the database's clock is real.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from contract.access import ANONYMOUS, Caller
from contract.claims import ClaimRequest
from contract.heartbeats import Heartbeat, HeartbeatReply
from contract.queries import ModelRegistration
from contract.schemas import Assignment, Commit, ConsumerRegistration, Failure, Release, Settled
from contract.statuses import Phase, Reason
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.loops.reaper import Reaper
from private_api.models import register_model
from private_api.placement.ahead import begin_task
from private_api.placement.consumers import register_consumer
from private_api.placement.task_claim import claim_task
from private_api.quotas.limits import NO_LIMITS, Limits
from private_api.server_tables import HeartbeatRow
from private_api.settings import YIELD_AFTER
from private_api.tables import AttemptRow, ConsumerRow, EventRow, OutboxRow, TaskRow
from private_api.task_logs import TaskLogs
from private_api.tasks.attempts import beat_task
from private_api.tasks.limits import SizeLimits
from private_api.tasks.settle import commit_output, fail_task, keep_output, release_task
from private_api.tasks.submit import submit_task
from tests.zips import make_zip

SIZES = SizeLimits(max_unpacked_bytes=1024**3, max_output_bytes=1024**3)
GPU = "GPU-00000000-0000-0000-0000-000000000001"


class SetClock(Database):
    """A database whose clock can be set."""

    offset = timedelta()

    def told(self, moment: datetime) -> datetime:
        return moment + self.offset


@dataclass(frozen=True)
class Harness:
    """One database, archive store and log folder."""

    database: Database
    store: ArchiveStore
    logs: TaskLogs

    def register(
        self, name: str = "echo", *, use_gpu: bool = False, caller: Caller = ANONYMOUS, **options: Any
    ) -> None:
        registration = ModelRegistration(human_readable_id=name, container_tag="echo:1", use_gpu=use_gpu, **options)
        register_model(self.database, self.store, registration, None, caller)

    def submit(
        self,
        model: str = "echo",
        *,
        key: str | None = None,
        files: Mapping[str, bytes] | None = None,
        caller: Caller = ANONYMOUS,
        priority: int = 0,
        label: str | None = None,
        defaults: Limits = NO_LIMITS,
    ) -> str:
        upload = self.store.open_upload(None)
        try:
            upload.write(make_zip(files or {"a.txt": b"hello"}))
            return submit_task(
                self.database,
                self.store,
                upload,
                reference=model,
                idempotency_key=key,
                caller=caller,
                priority=priority,
                label=label,
                defaults=defaults,
            )
        finally:
            upload.discard()

    def try_claim(
        self,
        consumer: str = "ada",
        *,
        gpu: str | None = None,
        cpu: bool = True,
        uid: str | None = None,
        slots: int = 8,
        **said: Any,
    ) -> Assignment | None:
        """`said` is what the claim says of its process and of what that holds."""
        request = ClaimRequest(
            consumer=consumer, gpu_uuid=gpu, accepts_cpu_tasks=cpu, uid=uid, replica_slots=slots, **said
        )
        return claim_task(self.database, request, SIZES, YIELD_AFTER, owner=None)

    def claim(self, consumer: str = "ada", **options: Any) -> Assignment:
        assignment = self.try_claim(consumer, **options)
        assert assignment is not None, "nothing could be claimed"
        return assignment

    def start(self, consumer: str = "ada", process: str | None = "one", *, gpu: str | None = None) -> None:
        """A process of a consumer registers."""
        registration = ConsumerRegistration(consumer=consumer, gpu_uuid=gpu, process=process)
        register_consumer(self.database, registration, owner=None)

    def submit_and_claim(self, consumer: str = "ada") -> Assignment:
        return self.claim(consumer, uid=self.submit())

    def beat(self, held: Assignment, phase: Phase = Phase.RUNNING, consumer: str = "ada") -> HeartbeatReply:
        return beat_task(self.database, held.uid, held.fence, Heartbeat(consumer=consumer, phase=phase))

    def begin(self, held: Assignment) -> Settled:
        return begin_task(self.database, held.uid, held.fence)

    def upload(self, held: Assignment, data: bytes = b"output") -> Commit:
        """Make an output durable, uncommitted."""
        upload = self.store.open_upload(None)
        try:
            upload.write(data)
            stored = keep_output(self.store, upload, held.uid, held.fence)
        finally:
            upload.discard()
        return Commit(consumer="ada", sha256=stored.sha256, size_bytes=stored.size_bytes)

    def commit(self, held: Assignment, commit: Commit | None = None) -> Settled:
        return commit_output(self.database, self.store, held.uid, held.fence, commit or self.upload(held))

    def fail(self, held: Assignment, reason: Reason = Reason.EXIT_CODE, exit_code: int | None = 3) -> Settled:
        failure = Failure(consumer="ada", reason=reason, detail="it broke", exit_code=exit_code)
        return fail_task(self.database, held.uid, held.fence, failure)

    def release(self, held: Assignment, *, blameless: bool = False) -> Settled:
        release = Release(consumer="ada", detail="the engine is away", blameless=blameless)
        return release_task(self.database, held.uid, held.fence, release)

    def reap(self, patience: timedelta = timedelta(days=1)) -> list[str]:
        """One step of the reaper; it was not away."""
        return Reaper(self.database, patience=patience, on_change=lambda _: None).step()

    def expire(self, uid: str) -> list[str]:
        """Let the lease run out and the reaper see it."""
        self.shift(uid, lease_until=timedelta(seconds=-61))
        return self.reap()

    def shift(self, uid: str, **moments: timedelta) -> None:
        """Move moments of a task by these amounts."""
        with self.database.write() as session:
            row = session.scalars(select(TaskRow).where(TaskRow.uid == uid)).one()
            for name, by in moments.items():
                setattr(row, name, getattr(row, name) + by)

    def silence(self, consumer: str, by: timedelta) -> None:
        """Let a consumer have been silent for so long."""
        with self.database.write() as session:
            session.get_one(ConsumerRow, consumer).seen_at -= by

    def set_reaper(self, age: timedelta) -> None:
        """Make the last step of the reaper, which ran before, this long ago."""
        with self.database.write() as session:
            session.get_one(HeartbeatRow, "reaper").at = self.database.now(session) - age

    def shift_bells(self, by: timedelta) -> None:
        """Move the moment at which each bell of the outbox is due."""
        with self.database.write() as session:
            for bell in session.scalars(select(OutboxRow)):
                bell.due_at += by

    def now(self) -> datetime:
        """The database's clock."""
        with self.database.read() as session:
            return self.database.now(session)

    def row(self, uid: str) -> TaskRow:
        with self.database.read() as session:
            return session.scalars(select(TaskRow).where(TaskRow.uid == uid)).one()

    def events(self, uid: str) -> list[tuple[str | None, str]]:
        """The recorded changes of status, old and new."""
        with self.database.read() as session:
            statement = select(EventRow.old_status, EventRow.new_status).join(TaskRow, TaskRow.id == EventRow.task_id)
            return [
                (old, new) for old, new in session.execute(statement.where(TaskRow.uid == uid).order_by(EventRow.id))
            ]

    def rows(self) -> tuple[datetime, dict[str, TaskRow]]:
        """The database's clock and every task with its archives."""
        with self.database.read() as session:
            options = joinedload(TaskRow.output), joinedload(TaskRow.input)
            rows = session.scalars(select(TaskRow).options(*options).order_by(TaskRow.id))
            return self.database.now(session), {row.uid: row for row in rows}

    def all_events(self) -> dict[str, list[str]]:
        """The statuses that each task had, as the events tell it; each event must follow from the one before."""
        found: dict[str, list[str]] = {}
        with self.database.read() as session:
            statement = select(TaskRow.uid, EventRow.old_status, EventRow.new_status)
            statement = statement.join(TaskRow, TaskRow.id == EventRow.task_id).order_by(EventRow.id)
            for uid, old, new in session.execute(statement):
                assert old == (found[uid][-1] if uid in found else None)
                found.setdefault(uid, []).append(new)
        return found

    def attempts(self, uid: str) -> list[tuple[int, str | None]]:
        """Fence and outcome of every attempt."""
        with self.database.read() as session:
            statement = select(AttemptRow.fence, AttemptRow.outcome).join(TaskRow, TaskRow.id == AttemptRow.task_id)
            rows = session.execute(statement.where(TaskRow.uid == uid).order_by(AttemptRow.id))
            return [(fence, outcome) for fence, outcome in rows]

    def bells(self) -> int:
        """How many wait in the outbox."""
        with self.database.read() as session:
            return session.scalar(select(func.count()).select_from(OutboxRow)) or 0

    def shift_claim(self, held: Assignment, by: timedelta) -> None:
        """Move the moment of a claim whose attempt has not ended."""
        with self.database.write() as session:
            self._attempt(session, held).claimed_at += by

    def shift_begin(self, held: Assignment, by: timedelta) -> None:
        """Move the moment at which an attempt began that was prepared ahead."""
        with self.database.write() as session:
            row = self._attempt(session, held)
            assert row.begun_at is not None
            row.begun_at += by

    def attempt_s(self, held: Assignment) -> float:
        """How long an ended attempt took from its claim to its end."""
        with self.database.read() as session:
            row = self._attempt(session, held)
            assert row.ended_at is not None
            return (row.ended_at - row.claimed_at).total_seconds()

    def _attempt(self, session: Session, held: Assignment) -> AttemptRow:
        statement = select(AttemptRow).join(TaskRow, TaskRow.id == AttemptRow.task_id)
        return session.scalars(statement.where(TaskRow.uid == held.uid, AttemptRow.fence == held.fence)).one()
