"""What a task waits for, in a word and in a sentence for whoever waits with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from contract.quotas import Quota
from contract.statuses import Phase, Status, WaitsFor
from kit.sizes import say_bytes
from private_api.deployment_tables import ReplicaRow
from private_api.placement.occupancy import (
    DISK_PER_INPUT,
    admits_replica,
    find_warm_replicas,
    highest_wanted_replica,
    is_hosted,
    live_consumers,
)
from private_api.quotas.running import find_full_quota
from private_api.recent import AT_ONCE, Recent
from private_api.tables import AttemptRow, ConsumerRow, TaskRow
from private_api.tasks.ahead import is_prepared_ahead


@dataclass(frozen=True)
class Wait:
    """What a task waits for. The sentence stays the same while nothing happens."""

    waits_for: WaitsFor
    detail: str


_PREPARATION = Wait(
    WaitsFor.PREPARATION,
    "its consumer fetches the input and prepares the container; an image that is not on its host is pulled first",
)
_TURN = Wait(WaitsFor.TURN, "a consumer is free and takes the next task within seconds")


def find_wait(session: Session, row: TaskRow, now: datetime, recent: Recent = AT_ONCE) -> Wait | None:
    """What keeps the task from running, or None once its container runs or it has ended.

    Who the consumers are and what an owner runs is as `recent` has it.
    """
    if row.status == Status.LEASED or (row.status.is_held and row.phase == Phase.PREPARING):
        if is_prepared_ahead(session, row):
            return Wait(WaitsFor.FREE_CONSUMER, f"{row.lease_owner} prepares it while it runs another task")
        return _PREPARATION if row.pull_percent is None else _pull(row.pull_percent)
    if row.status != Status.QUEUED:
        return None
    if row.not_before > now:
        return Wait(WaitsFor.RETRY, f"its last attempt failed; the next one may begin at {clock(row.not_before)}")
    if (limit := _find_full_quota(session, row, recent)) is not None:
        return Wait(WaitsFor.QUOTA, f"one of its owner's own tasks must end first: quota {Quota.RUNNING} {limit}")
    return _find_queue_wait(session, row, now, recent)


def _find_full_quota(session: Session, row: TaskRow, recent: Recent) -> int | None:
    if row.owner is None:
        return None
    return recent.get(("quota", row.owner, row.running_limit), lambda: find_full_quota(session, row))


def _find_queue_wait(session: Session, row: TaskRow, now: datetime, recent: Recent) -> Wait:
    """What keeps consumers from a task that could be claimed now."""
    live = read_live(session, now, recent, use_gpu=row.use_gpu)
    consumers, busy = [each for each, _ in live], {each.name for each, is_busy in live if is_busy}
    if not consumers:
        return recent.get(("none", row.use_gpu), lambda: _no_consumer(session, use_gpu=row.use_gpu))
    consumers, drained = [each for each in consumers if each.draining_at is None], len(consumers)
    if not consumers:
        return _all_drain(drained, use_gpu=row.use_gpu)
    consumers, sick = [each for each in consumers if each.trouble is None], len(consumers)
    if not consumers:
        return _all_sick(sick, use_gpu=row.use_gpu)
    need = DISK_PER_INPUT * row.input.size_bytes
    consumers, cramped = [each for each in consumers if each.free_bytes is None or each.free_bytes >= need], consumers
    if not consumers:
        return _no_room(need, cramped)
    idle = [consumer for consumer in consumers if consumer.name not in busy]
    if not idle:
        return _all_busy(len(consumers), use_gpu=row.use_gpu)
    return _find_gpu_wait(session, row, idle, len(consumers), now) if row.use_gpu else _TURN


def _pull(percent: int) -> Wait:
    return Wait(WaitsFor.IMAGE, f"its consumer pulls the image, which is not on its host: {percent} % done")


def is_of_kind(*, use_gpu: bool) -> ColumnElement[bool]:
    """The condition that a consumer could ever run such a task."""
    return ConsumerRow.gpu_uuid.is_not(None) if use_gpu else ConsumerRow.accepts_cpu_tasks.is_(True)


def read_live(session: Session, now: datetime, recent: Recent, *, use_gpu: bool) -> Sequence[tuple[ConsumerRow, bool]]:
    """The consumers that are there for such tasks, as `recent` has them.

    With each, whether it has a task, or had one that may still come back to it.
    """
    has_task = exists().where(AttemptRow.consumer == ConsumerRow.name, AttemptRow.ended_at.is_(None))
    live = live_consumers(now).where(is_of_kind(use_gpu=use_gpu)).add_columns(has_task)
    return recent.get(("consumers", use_gpu), lambda: [(each, is_busy) for each, is_busy in session.execute(live)])


def replicas_by_consumer(session: Session, consumers: Sequence[ConsumerRow]) -> dict[str, list[ReplicaRow]]:
    """What each of these consumers hosts, in one query."""
    hosted: dict[str, list[ReplicaRow]] = {consumer.name: [] for consumer in consumers}
    statement = select(ReplicaRow).where(ReplicaRow.consumer.in_(hosted), is_hosted()).order_by(ReplicaRow.id)
    for row in session.scalars(statement):
        hosted[row.consumer or ""].append(row)
    return hosted


def models_on_gpu(hosted: list[ReplicaRow]) -> list[str]:
    """The models of the replicas that leave no room for a task on their GPU; none if there is room."""
    if admits_replica(hosted, share_gpu=True):
        return []
    return sorted({row.model_version.model.human_readable_id for row in hosted if row.use_gpu})


def _find_gpu_wait(session: Session, row: TaskRow, idle: list[ConsumerRow], count: int, now: datetime) -> Wait:
    """What a GPU task waits for while these consumers have none."""
    hosted = replicas_by_consumer(session, idle)
    for consumer in idle:
        mine = hosted[consumer.name]
        if row.model_version_id in find_warm_replicas(session, mine, now):
            return _TURN
        if models_on_gpu(mine):
            continue
        # A waiting replica of the same or a higher priority is served first.
        blocking = highest_wanted_replica(session, consumer, mine, now)
        if blocking is None or row.priority > blocking:
            return _TURN
    if len(idle) < count:
        return _all_busy(count, use_gpu=True, held=len(idle))
    return _held([replica for mine in hosted.values() for replica in mine if replica.use_gpu], row)


def _held(holders: list[ReplicaRow], row: TaskRow) -> Wait:
    models = sorted({replica.model_version.model.human_readable_id for replica in holders})
    if not models:
        why = "its priority is this task's or above, or it comes back after a turn of tasks"
        return Wait(WaitsFor.HELD_GPU, f"a model that is kept warm gets the free GPU: {why}")
    what = f"every GPU is held by a model that is kept warm ({', '.join(models)})"
    if any(replica.priority < row.priority for replica in holders):
        when = "soon if nobody calls it, else once tasks have waited for long"
        return Wait(WaitsFor.HELD_GPU, f"{what}; one of a lower priority leaves for this task by itself, {when}")
    return Wait(
        WaitsFor.HELD_GPU,
        f"{what} at this task's priority or above; `infer undeploy {models[0]}` would free one",
    )


def _all_of(count: int, *, use_gpu: bool) -> str:
    kind = "with a GPU" if use_gpu else "for tasks without a GPU"
    return f"the only consumer {kind} is" if count == 1 else f"all {count} consumers {kind} are"


def _all_drain(count: int, *, use_gpu: bool) -> Wait:
    who = _all_of(count, use_gpu=use_gpu)
    what = "draining: nothing new is taken until an operator resumes one with `infer resume`"
    return Wait(WaitsFor.RESUME, f"{who} {what}")


def _all_sick(count: int, *, use_gpu: bool) -> Wait:
    who = _all_of(count, use_gpu=use_gpu)
    return Wait(WaitsFor.REPAIR, f"{who} sick and takes nothing; `infer consumers` tells its operator why")


def _no_room(need: int, consumers: list[ConsumerRow]) -> Wait:
    most = max(each.free_bytes or 0 for each in consumers)
    return Wait(
        WaitsFor.REPAIR,
        f"its input needs {say_bytes(need)} of a consumer's disk, zipped and unpacked, and none that takes tasks has "
        f"more than {say_bytes(most)} for it: an operator must free some",
    )


def _all_busy(count: int, *, use_gpu: bool, held: int = 0) -> Wait:
    who = _all_of(count, use_gpu=use_gpu)
    beside = f", {held} of them with models that are kept warm" if held else ""
    return Wait(WaitsFor.FREE_CONSUMER, f"{who} busy{beside}")


def _no_consumer(session: Session, *, use_gpu: bool) -> Wait:
    last = session.scalar(select(func.max(ConsumerRow.seen_at)).where(is_of_kind(use_gpu=use_gpu)))
    what = f"no consumer {'with a GPU' if use_gpu else 'for tasks without a GPU'} is there"
    if last is not None:
        what = f"{what}: the last one was heard from at {clock(last)}"
    how = (
        "on a host with a GPU: `inference-server gpus --write compose.gpu.yaml` shows how"
        if use_gpu
        else "(with Compose by COMPOSE_PROFILES=cpu)"
    )
    return Wait(WaitsFor.CONSUMER, f"{what}. Start one {how}")


def clock(moment: datetime) -> str:
    """A moment for a sentence."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
