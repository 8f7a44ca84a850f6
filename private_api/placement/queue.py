"""The queue as people see it: counts for everybody, tasks for those who may see them."""

from datetime import datetime

from sqlalchemy import ColumnElement, case, false, func, select, true
from sqlalchemy.orm import Session

from contract.access import Caller, Scope
from contract.overview import LaneView, QueuedTask, QueueView
from contract.statuses import HELD, ConsumerStatus, Kind, Status
from private_api.database import Database
from private_api.placement.fleet import find_live, kinds_of
from private_api.placement.waiting import find_wait
from private_api.quotas.running import may_run
from private_api.tables import TaskRow

_CLAIM_ORDER = (TaskRow.priority.desc(), TaskRow.not_before, TaskRow.id)


def read_queue(database: Database, caller: Caller, *, limit: int) -> QueueView:
    """The queue, with at most `limit` tasks that wait and as many held.

    Whose tasks wait is for the scope operate; other callers see their own, and without a key only the counts.
    """
    with database.read() as session:
        now = database.now(session)
        visible = _visible(caller)
        return QueueView(
            lanes=_lanes(session, now),
            tasks=[*_held(session, visible, limit), *_waiting(session, visible, limit)],
        )


def _visible(caller: Caller) -> ColumnElement[bool]:
    if caller.may(Scope.OPERATE):
        return true()
    return false() if caller.owner is None else TaskRow.owner == caller.owner


def _lanes(session: Session, now: datetime) -> list[LaneView]:
    statement = (
        select(TaskRow.use_gpu, TaskRow.status, func.count(), func.min(TaskRow.created_at))
        .where(TaskRow.status.in_([Status.QUEUED, *HELD]))
        .group_by(TaskRow.use_gpu, TaskRow.status)
    )
    found = {(use_gpu, status): (count, oldest) for use_gpu, status, count, oldest in session.execute(statement)}
    live = find_live(session, now)
    lanes = []
    for kind in (Kind.GPU, Kind.CPU):
        use_gpu = kind is Kind.GPU
        of_kind = [each.status for each in live if kind in kinds_of(each.row)]
        # A held GPU keeps nobody from tasks without one.
        free = {ConsumerStatus.FREE} | (set() if use_gpu else {ConsumerStatus.HELD})
        # What its owner's quota holds back holds up nobody else.
        order = (case((may_run(session), 0), else_=1), *_CLAIM_ORDER)
        first = select(TaskRow).where(TaskRow.status == Status.QUEUED, TaskRow.use_gpu.is_(use_gpu))
        head = session.scalars(first.order_by(*order).limit(1)).first()
        wait = find_wait(session, head, now) if head is not None else None
        queued, oldest = found.get((use_gpu, Status.QUEUED), (0, None))
        lanes.append(
            LaneView(
                kind=kind,
                queued=queued,
                held=sum(found.get((use_gpu, status), (0, None))[0] for status in HELD),
                consumers=len(of_kind),
                free=sum(status in free for status in of_kind),
                oldest_queued_at=oldest,
                waits_for=wait.waits_for if wait else None,
                wait_detail=wait.detail if wait else None,
            )
        )
    return lanes


def _held(session: Session, visible: ColumnElement[bool], limit: int) -> list[QueuedTask]:
    statement = select(TaskRow).where(TaskRow.status.in_(HELD), TaskRow.deleted_at.is_(None), visible)
    return [_view(row, None) for row in session.scalars(statement.order_by(TaskRow.id).limit(limit))]


def _waiting(session: Session, visible: ColumnElement[bool], limit: int) -> list[QueuedTask]:
    before = func.row_number().over(partition_by=TaskRow.use_gpu, order_by=_CLAIM_ORDER) - 1
    places = select(TaskRow.id, before.label("position")).where(TaskRow.status == Status.QUEUED).subquery()
    statement = (
        select(TaskRow, places.c.position)
        .join(places, places.c.id == TaskRow.id)
        .where(visible)
        .order_by(places.c.position, TaskRow.use_gpu.desc())
        .limit(limit)
    )
    return [_view(row, position) for row, position in session.execute(statement)]


def _view(row: TaskRow, position: int | None) -> QueuedTask:
    return QueuedTask(
        uid=row.uid,
        owner=row.owner,
        human_readable_id=row.model_version.model.human_readable_id,
        kind=Kind.GPU if row.use_gpu else Kind.CPU,
        priority=row.priority,
        status=row.status,
        position=position,
        consumer=row.lease_owner,
        created_at=row.created_at,
    )
