"""The consumers as people see them: how each stands towards the next task, and what it runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from contract.access import Caller, Scope
from contract.errors import ConsumerNotFound, Unauthenticated
from contract.overview import ConsumerTask, ConsumerView, HostedReplica
from contract.statuses import ConsumerStatus, Kind, Status
from private_api.database import Database
from private_api.deployment_tables import ReplicaRow
from private_api.leases import LEASE
from private_api.placement.occupancy import highest_waiting_task, highest_wanted_replica, live_consumers
from private_api.placement.waiting import clock, models_on_gpu, replicas_by_consumer
from private_api.quotas.running import may_run
from private_api.tables import AttemptRow, ConsumerRow, TaskRow


@dataclass(frozen=True)
class Standing:
    """How a consumer stands towards the next task, and what it has."""

    row: ConsumerRow
    status: ConsumerStatus
    detail: str | None
    """Why it takes nothing."""
    held: tuple[AttemptRow, TaskRow] | None
    hosted: list[ReplicaRow]


@dataclass(frozen=True)
class _Waiting:
    """What waits for consumers."""

    gpu_priority: int | None
    """The highest of the GPU tasks, or None without any."""
    has_cpu_tasks: bool
    at: datetime


def list_consumers(database: Database, caller: Caller, *, limit: int, after: str | None) -> list[ConsumerView]:
    """A page of the consumers that were ever seen, in the order of their names. Raises `Unauthenticated` without a key.

    Owners and everybody's tasks are for the scope operate; other callers see their own tasks.
    """
    if caller.owner is None:
        raise Unauthenticated("the consumers are shown to holders of a key: X-API-Key: <key>")
    page = select(ConsumerRow).where(ConsumerRow.name > (after or "")).order_by(ConsumerRow.name).limit(limit)
    with database.read() as session:
        now = database.now(session)
        fleet = _look_at(session, session.scalars(page).all(), now)
        return [hide_foreign(_view(each), caller) for each in fleet]


def hide_foreign(view: ConsumerView, caller: Caller) -> ConsumerView:
    """The consumer without its owner, another owner's task and why it is sick, unless the caller may see those."""
    if caller.may(Scope.OPERATE):
        return view
    if view.status is ConsumerStatus.SICK:
        # The reason may quote what failed of anybody's task.
        view = view.model_copy(update={"detail": "it cannot run tasks now; its operator sees why"})
    is_own = view.task is not None and view.task.owner is not None and view.task.owner == caller.owner
    return view.model_copy(update={"owner": None} if is_own else {"owner": None, "task": None})


def show_consumer(database: Database, caller: Caller, name: str) -> ConsumerView:
    """One consumer. Raises `ConsumerNotFound`."""
    with database.read() as session:
        row = session.get(ConsumerRow, name)
        if row is None:
            raise ConsumerNotFound
        (standing,) = _look_at(session, [row], database.now(session))
        return hide_foreign(_view(standing), caller)


def find_live(session: Session, now: datetime) -> list[Standing]:
    """The standing of every consumer that was heard from within a lease."""
    return _look_at(session, session.scalars(live_consumers(now)).all(), now)


def _look_at(session: Session, consumers: Sequence[ConsumerRow], now: datetime) -> list[Standing]:
    held, hosted = _tasks_of(session, consumers), replicas_by_consumer(session, consumers)
    waiting = _read_waiting(session, now)
    found = []
    for row in consumers:
        mine = held.get(row.name), hosted[row.name]
        closed = _judge_silent(row, now) or _judge_draining(row, *mine) or _judge_sick(row)
        status, detail = closed or _judge(session, row, *mine, waiting)
        found.append(Standing(row, status, detail, *mine))
    return found


def _tasks_of(session: Session, consumers: Sequence[ConsumerRow]) -> dict[str, tuple[AttemptRow, TaskRow]]:
    """The task that each of these consumers has, or had and may still come back to."""
    statement = (
        select(AttemptRow, TaskRow)
        .join(TaskRow, TaskRow.id == AttemptRow.task_id)
        .where(AttemptRow.consumer.in_([row.name for row in consumers]), AttemptRow.ended_at.is_(None))
        # What it runs comes last: after what it delivers, and what it prepares.
        .order_by(AttemptRow.is_ahead.desc(), AttemptRow.id)
    )
    return {attempt.consumer: (attempt, task) for attempt, task in session.execute(statement)}


def kinds_of(row: ConsumerRow) -> list[Kind]:
    """The kinds of tasks that a consumer takes."""
    return [Kind.GPU] * (row.gpu_uuid is not None) + [Kind.CPU] * row.accepts_cpu_tasks


def _judge_silent(row: ConsumerRow, now: datetime) -> tuple[ConsumerStatus, str] | None:
    if row.seen_at > now - LEASE:
        return None
    why = f"not heard from since {clock(row.seen_at)}: it is stopped, or does not reach the private API"
    if row.draining_at is not None:
        why = f"{why}; it is draining and takes nothing when it is back, until `infer resume {row.name}`"
    return ConsumerStatus.SILENT, why


def _judge_draining(
    row: ConsumerRow, held: tuple[AttemptRow, TaskRow] | None, hosted: list[ReplicaRow]
) -> tuple[ConsumerStatus, str] | None:
    if row.draining_at is None:
        return None
    left = [*(["its task"] if held else []), *(["its replicas"] if hosted else [])]
    what = f"it finishes {' and '.join(left)}" if left else "it has nothing left, so its host may go down"
    return ConsumerStatus.DRAINING, f"{what}; it takes nothing new until `infer resume {row.name}`"


def _judge_sick(row: ConsumerRow) -> tuple[ConsumerStatus, str] | None:
    return None if row.trouble is None else (ConsumerStatus.SICK, row.trouble)


def _judge(
    session: Session,
    row: ConsumerRow,
    held: tuple[AttemptRow, TaskRow] | None,
    hosted: list[ReplicaRow],
    waiting: _Waiting,
) -> tuple[ConsumerStatus, str | None]:
    if held is not None:
        return ConsumerStatus.BUSY, "it runs one task at a time"
    if row.gpu_uuid is not None and (models := models_on_gpu(hosted)):
        also = " and tasks without a GPU" if row.accepts_cpu_tasks else ""
        why = f"its GPU is held by models that are kept warm ({', '.join(models)}): it takes only their tasks{also}"
        return ConsumerStatus.HELD, why
    return ConsumerStatus.FREE, _why_idle(session, row, hosted, waiting)


def _why_idle(session: Session, row: ConsumerRow, hosted: list[ReplicaRow], waiting: _Waiting) -> str | None:
    if row.accepts_cpu_tasks and waiting.has_cpu_tasks:
        return None
    if row.gpu_uuid is None or waiting.gpu_priority is None:
        return "no task of its kind waits"
    blocking = highest_wanted_replica(session, row, hosted, waiting.at)
    if blocking is None or waiting.gpu_priority > blocking:
        return None
    return "a model that is kept warm gets its GPU: at the waiting tasks' priority or above, or after a turn of tasks"


def _read_waiting(session: Session, now: datetime) -> _Waiting:
    cpu_task = select(TaskRow.id).where(
        TaskRow.status == Status.QUEUED, TaskRow.use_gpu.is_(False), TaskRow.not_before <= now, may_run(session)
    )
    return _Waiting(highest_waiting_task(session, now), session.scalar(cpu_task.limit(1)) is not None, now)


def _view(standing: Standing) -> ConsumerView:
    row = standing.row
    return ConsumerView(
        name=row.name,
        owner=row.owner,
        kinds=kinds_of(row),
        gpu_uuid=row.gpu_uuid,
        host=row.host,
        status=standing.status,
        detail=standing.detail,
        task=_view_task(*standing.held) if standing.held else None,
        replicas=[_view_replica(replica) for replica in standing.hosted],
        replica_slots=row.replica_slots,
        draining_at=row.draining_at,
        first_seen_at=row.first_seen_at,
        seen_at=row.seen_at,
    )


def _view_task(attempt: AttemptRow, task: TaskRow) -> ConsumerTask:
    return ConsumerTask(
        uid=task.uid,
        owner=task.owner,
        human_readable_id=task.model_version.model.human_readable_id,
        phase=task.phase if task.phase and task.lease_owner == attempt.consumer else None,
        pull_percent=task.pull_percent if task.lease_owner == attempt.consumer else None,
        claimed_at=attempt.claimed_at,
    )


def _view_replica(row: ReplicaRow) -> HostedReplica:
    return HostedReplica(
        human_readable_id=row.model_version.model.human_readable_id,
        status=row.status,
        use_gpu=row.use_gpu,
        share_gpu=row.share_gpu,
    )
