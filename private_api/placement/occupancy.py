"""What each consumer holds, what it has room for, and what waits for one like it.

A GPU belongs to one container at a time, unless a replica shares it. Both claims ask here, in the transaction in which
they locked their consumer's row: two claims of one consumer never see the same free GPU.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, case, exists, false, func, or_, select, true
from sqlalchemy.orm import Session

from contract.deployments import ReplicaClaim, ReplicaStatus
from contract.statuses import Phase, Status
from private_api.deployment_tables import ReplicaRow
from private_api.deployments.gateways import read_load
from private_api.deployments.limits import LEFT_TO_OTHERS_FOR
from private_api.deployments.rows import HOSTED
from private_api.leases import LEASE
from private_api.quotas.running import may_run
from private_api.tables import ArchiveRow, AttemptRow, ConsumerRow, TaskRow

DISK_PER_INPUT = 2
"""An input lies on its consumer's disk as a zip and, at least as large, unpacked."""
_BEFORE_EVERY_TASK = 100
"""The highest priority of a task: none goes before a replica of it."""


@dataclass(frozen=True)
class Claimable:
    """The tasks that a consumer may claim."""

    gpu_tasks: ColumnElement[bool]
    warm: dict[int, str]
    """The uids of replicas that can run tasks, by the id of their model's version."""


def is_hosted() -> ColumnElement[bool]:
    """The condition that a replica has a container, or is about to."""
    return ReplicaRow.status.in_(HOSTED)


def hosted_by(session: Session, consumer: str) -> list[ReplicaRow]:
    """The replicas that a consumer hosts."""
    return list(session.scalars(select(ReplicaRow).where(ReplicaRow.consumer == consumer, is_hosted())))


def is_over() -> ColumnElement[bool]:
    """The condition that a task's run has ended: only its output is still on its way."""
    return func.coalesce(TaskRow.phase == Phase.DELIVERING, false())


def holds_gpu_task(session: Session, consumer: str, over: Collection[str] = ()) -> bool:
    """Whether a task may be on this consumer's GPU, including one whose lease expired while its holder may return.

    `over` are the uids of tasks of which it is known that their run has ended.
    """
    statement = (
        select(AttemptRow.id)
        .join(TaskRow, TaskRow.id == AttemptRow.task_id)
        .where(AttemptRow.consumer == consumer, AttemptRow.ended_at.is_(None))
        .where(TaskRow.use_gpu.is_(True), ~is_over(), TaskRow.uid.not_in(over))
    )
    return session.scalars(statement.limit(1)).first() is not None


def admits_replica(hosted: list[ReplicaRow], *, share_gpu: bool) -> bool:
    """Whether the replicas on a GPU admit another one beside them."""
    on_gpu = [row for row in hosted if row.use_gpu]
    return not on_gpu or (share_gpu and all(row.share_gpu for row in on_gpu))


def fits_on_disk(free_bytes: int) -> ColumnElement[bool]:
    """The condition that a task's input fits on the disk of a consumer with so much free."""
    return exists().where(ArchiveRow.id == TaskRow.input_id, ArchiveRow.size_bytes <= free_bytes // DISK_PER_INPUT)


def is_waiting_gpu_task(session: Session, now: datetime, free_bytes: int | None = None) -> ColumnElement[bool]:
    """The condition that a GPU task could be claimed now, by a consumer with so much of its disk free."""
    return and_(
        TaskRow.status == Status.QUEUED,
        TaskRow.use_gpu.is_(True),
        TaskRow.not_before <= now,
        TaskRow.cancel_at.is_(None),
        may_run(session),
        true() if free_bytes is None else fits_on_disk(free_bytes),
    )


def highest_waiting_task(session: Session, now: datetime, free_bytes: int | None = None) -> int | None:
    """The highest priority of the GPU tasks that such a consumer could claim now, or None without any."""
    return session.scalar(select(func.max(TaskRow.priority)).where(is_waiting_gpu_task(session, now, free_bytes)))


def goes_first(session: Session, now: datetime, free_bytes: int | None = None) -> ColumnElement[bool]:
    """The condition that a waiting replica goes before every task: those of its turn were all given to consumers."""
    of_its_turn = exists().where(
        is_waiting_gpu_task(session, now, free_bytes),
        TaskRow.priority > ReplicaRow.priority,
        TaskRow.not_before <= ReplicaRow.yielded_at,
    )
    return and_(ReplicaRow.yielded_at.is_not(None), ~of_its_turn.correlate(ReplicaRow))


def highest_wanted_replica(
    session: Session, consumer: ConsumerRow, hosted: list[ReplicaRow], now: datetime
) -> int | None:
    """The highest priority of the waiting GPU replicas that a consumer with these replicas could host.

    One that goes before every task counts as having the highest there is.
    """
    if len(hosted) >= consumer.replica_slots:
        return None
    priority = case((goes_first(session, now, consumer.free_bytes), _BEFORE_EVERY_TASK), else_=ReplicaRow.priority)
    statement = select(func.max(priority)).where(
        ReplicaRow.status == ReplicaStatus.WANTED, ReplicaRow.use_gpu.is_(True)
    )
    if not admits_replica(hosted, share_gpu=False):
        if not admits_replica(hosted, share_gpu=True):
            return None
        statement = statement.where(ReplicaRow.share_gpu.is_(True))
    highest: int | None = session.scalar(statement)
    return highest


def find_warm_replicas(session: Session, hosted: list[ReplicaRow], now: datetime) -> dict[int, str]:
    """The uids of a consumer's replicas that can run a task now, by the id of their model's version.

    A replica with a GPU must have no open calls; one without answers them beside the task.
    """
    able = [row for row in hosted if row.serves_tasks and row.status == ReplicaStatus.READY]
    if not able:
        return {}
    calls = read_load(session, now).replicas
    return {row.model_version_id: row.uid for row in able if not row.use_gpu or not calls[row.uid]}


def may_claim(
    session: Session,
    consumer: ConsumerRow,
    hosted: list[ReplicaRow],
    now: datetime,
    *,
    over: Collection[str] = (),
    ahead: bool = False,
) -> Claimable:
    """Which GPU tasks a consumer with these replicas may claim, and which tasks run through one of them.

    `over` are the uids of tasks of which it says that their run has ended. What it claims ahead runs once the task that
    it has is over, and a replica that waits for that one may go first.
    """
    warm = find_warm_replicas(session, hosted, now)
    if not admits_replica(hosted, share_gpu=True):
        return Claimable(TaskRow.model_version_id.in_(warm), warm)
    # A task may still come back to this GPU: no waiting replica can be hosted here then, so none blocks tasks.
    is_held = not ahead and holds_gpu_task(session, consumer.name, over)
    blocking = None if is_held else highest_wanted_replica(session, consumer, hosted, now)
    return Claimable(true() if blocking is None else TaskRow.priority > blocking, warm)


def live_consumers(now: datetime, within: timedelta = LEASE) -> Select[ConsumerRow]:
    """The consumers that were seen within a lease, or within another time."""
    return select(ConsumerRow).where(ConsumerRow.seen_at > now - within)


def taking_consumers(now: datetime, within: timedelta = LEASE) -> Select[ConsumerRow]:
    """Those of them that are well and do not drain."""
    return live_consumers(now, within).where(ConsumerRow.draining_at.is_(None), ConsumerRow.trouble.is_(None))


def draining_names() -> Select[str]:
    """The names of the consumers that drain."""
    return select(ConsumerRow.name).where(ConsumerRow.draining_at.is_not(None))


def closed_names() -> Select[str]:
    """The names of the consumers that take nothing new: they drain, or are sick."""
    return select(ConsumerRow.name).where(or_(ConsumerRow.draining_at.is_not(None), ConsumerRow.trouble.is_not(None)))


def find_obstacle(session: Session, row: ReplicaRow, now: datetime) -> str | None:
    """What a waiting replica waits for, in words, or None if a consumer has room for it."""
    consumers = session.scalars(taking_consumers(now).where(*_is_of_its_kind(row))).all()
    if not consumers:
        kind = "with a GPU" if row.use_gpu else "without a GPU"
        closed = session.scalars(live_consumers(now).where(*_is_of_its_kind(row))).all()
        if closed:
            how = "draining" if all(each.draining_at is not None for each in closed) else "sick or draining"
            return f"every consumer that hosts replicas {kind} is {how}"
        if session.scalars(live_consumers(now).where(*_is_of_its_hardware(row))).all():
            return (
                f"it runs tasks, and no consumer that hosts replicas {kind} can keep them from what else is on its "
                "network: `inference-server doctor` says why"
            )
        return f"no consumer that hosts replicas {kind} is there"
    has_room = any(_has_room(session, consumer, hosted_by(session, consumer.name), row) for consumer in consumers)
    is_next = has_room and session.scalar(select(goes_first(session, now)).where(ReplicaRow.id == row.id))
    if row.yielded_at is not None and not is_next:
        return "left its GPU to tasks that had waited for long, and comes back after them"
    if has_room:
        return None
    return f"waits for a consumer with {'a free GPU' if row.use_gpu else 'room for another replica'}"


def left_to_others(session: Session, claim: ReplicaClaim, hosted: list[ReplicaRow], now: datetime) -> list[int]:
    """The ids of waiting replicas that a consumer leaves for a moment to one that hosts fewer of their deployment.

    The loss of one host then does not end every replica. A consumer with room that has not been seen for that moment
    is not waited for.
    """
    mine = _by_deployment(hosted)
    young = select(ReplicaRow).where(
        ReplicaRow.status == ReplicaStatus.WANTED,
        ReplicaRow.deployment_id.in_(mine),
        ReplicaRow.created_at > now - LEFT_TO_OTHERS_FOR,
    )
    return [row.id for row in session.scalars(young) if _suits_another(session, claim.consumer, mine, row, now)]


def _suits_another(session: Session, consumer: str, mine: Counter[int | None], row: ReplicaRow, now: datetime) -> bool:
    others = taking_consumers(now, LEFT_TO_OTHERS_FOR).where(ConsumerRow.name != consumer, *_is_of_its_kind(row))
    for other in session.scalars(others):
        hosted = hosted_by(session, other.name)
        hosts_fewer = _by_deployment(hosted)[row.deployment_id] < mine[row.deployment_id]
        if hosts_fewer and _has_room(session, other, hosted, row):
            return True
    return False


def _by_deployment(hosted: list[ReplicaRow]) -> Counter[int | None]:
    """How many replicas of each deployment are here to stay."""
    return Counter(row.deployment_id for row in hosted if row.status != ReplicaStatus.DRAINING)


def _is_of_its_kind(row: ReplicaRow) -> tuple[ColumnElement[bool], ...]:
    """The conditions under which a consumer could ever host the replica."""
    guarded = (ConsumerRow.guards_replicas.is_(True),) if row.serves_tasks else ()
    return (*_is_of_its_hardware(row), *guarded)


def _is_of_its_hardware(row: ReplicaRow) -> tuple[ColumnElement[bool], ...]:
    kind = ConsumerRow.gpu_uuid.is_not(None) if row.use_gpu else ConsumerRow.accepts_cpu_tasks.is_(True)
    return ConsumerRow.replica_slots > 0, kind


def _has_room(session: Session, consumer: ConsumerRow, hosted: list[ReplicaRow], row: ReplicaRow) -> bool:
    """Whether a consumer of the replica's kind that hosts these could host it too, now."""
    if len(hosted) >= consumer.replica_slots:
        return False
    if not row.use_gpu:
        return True
    return admits_replica(hosted, share_gpu=row.share_gpu) and not holds_gpu_task(session, consumer.name)


def is_free_for_task() -> ColumnElement[bool]:
    """The condition that a consumer runs no task, and no replica on its GPU that a task would have to wait for."""
    running = select(AttemptRow.id).join(TaskRow, TaskRow.id == AttemptRow.task_id)
    of_consumer = AttemptRow.consumer == ConsumerRow.name, AttemptRow.ended_at.is_(None)
    holds_task = running.where(*of_consumer, ~is_over()).correlate(ConsumerRow).exists()
    hosts = exists().where(
        ReplicaRow.consumer == ConsumerRow.name,
        is_hosted(),
        ReplicaRow.use_gpu.is_(True),
        ReplicaRow.share_gpu.is_(False),
    )
    return ~or_(holds_task, hosts)
