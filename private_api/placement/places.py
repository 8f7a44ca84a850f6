"""A task's place in the queue, without counting all that are before it.

Of every `_STEP` tasks in the order of claims one is remembered, and of those that are before a task, the last one. What
is between the two is counted. In a short queue none is remembered, and the place is exact; in a long one it is off by
what was claimed or added before the task since the marks were read.
"""

from bisect import bisect_left
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from contract.statuses import Status
from private_api.recent import Recent
from private_api.tables import TaskRow

_STEP = 1000
_FEW = 4
"""So many places are counted one by one."""

_Mark = tuple[int, datetime, int]
"""Where a task stands: its priority below zero, when it may be claimed, its id. The first one is the lowest."""


def find_position(session: Session, row: TaskRow, recent: Recent) -> int:
    """How many queued tasks of its kind are before a queued task."""
    marks = _marks(session, recent, use_gpu=row.use_gpu)
    before = bisect_left(marks, _place(row))
    between = [TaskRow.status == Status.QUEUED, TaskRow.use_gpu.is_(row.use_gpu), TaskRow.priority >= row.priority]
    if before:
        priority, not_before, id_ = marks[before - 1]
        between.append(TaskRow.priority <= -priority)
        if -priority == row.priority:
            # What an index finds by itself.
            between.append(TaskRow.not_before.between(not_before, row.not_before))
        between.append(~_is_before(-priority, not_before, id_))
    counted = select(func.count()).where(*between, _is_before(row.priority, row.not_before, row.id))
    # The mark itself is before the task, and counted.
    return max(0, before * _STEP - 1) + (session.scalar(counted) or 0)


def find_positions(session: Session, rows: Iterable[TaskRow], recent: Recent) -> dict[int, int]:
    """The same of many queued tasks, by their ids: where several are between the same marks, those are read once."""
    stretches: dict[tuple[bool, int], list[TaskRow]] = {}
    for row in rows:
        before = bisect_left(_marks(session, recent, use_gpu=row.use_gpu), _place(row))
        stretches.setdefault((row.use_gpu, before), []).append(row)
    found: dict[int, int] = {}
    for (use_gpu, before), those in stretches.items():
        if len(those) < _FEW:
            found |= {row.id: find_position(session, row, recent) for row in those}
            continue
        marks = _marks(session, recent, use_gpu=use_gpu)
        places = _read_places(session, marks[before - 1] if before else None, max(map(_place, those)), use_gpu=use_gpu)
        found |= {row.id: max(0, before * _STEP - 1) + bisect_left(places, _place(row)) for row in those}
    return found


def _place(row: TaskRow) -> _Mark:
    return -row.priority, row.not_before, row.id


def _marks(session: Session, recent: Recent, *, use_gpu: bool) -> list[_Mark]:
    return recent.get(("places", use_gpu), lambda: _read_marks(session, use_gpu=use_gpu))


def _read_places(session: Session, first: _Mark | None, last: _Mark, *, use_gpu: bool) -> list[_Mark]:
    """The places from `first`, or the head of the queue, to `last`."""
    columns = (TaskRow.priority, TaskRow.not_before, TaskRow.id)
    within = [TaskRow.status == Status.QUEUED, TaskRow.use_gpu.is_(use_gpu), TaskRow.priority >= -last[0]]
    if first is not None:
        within += [TaskRow.priority <= -first[0], ~_is_before(-first[0], *first[1:])]
        if first[0] == last[0]:
            within.append(TaskRow.not_before.between(first[1], last[1]))
    read = session.execute(select(*columns).where(*within))
    return sorted((-priority, not_before, id_) for priority, not_before, id_ in read)


def _is_before(priority: int, not_before: datetime, id_: int) -> ColumnElement[bool]:
    older = or_(TaskRow.not_before < not_before, and_(TaskRow.not_before == not_before, TaskRow.id < id_))
    return or_(TaskRow.priority > priority, and_(TaskRow.priority == priority, older))


def _read_marks(session: Session, *, use_gpu: bool) -> list[_Mark]:
    """Every `_STEP`th queued task, in the order of claims."""
    order = (TaskRow.priority.desc(), TaskRow.not_before, TaskRow.id)
    columns = (TaskRow.priority, TaskRow.not_before, TaskRow.id)
    numbered = (
        select(*columns, func.row_number().over(order_by=order).label("number"))
        .where(TaskRow.status == Status.QUEUED, TaskRow.use_gpu.is_(use_gpu))
        .subquery()
    )
    marks = select(numbered.c.priority, numbered.c.not_before, numbered.c.id).where(numbered.c.number % _STEP == 0)
    return sorted((-priority, not_before, id_) for priority, not_before, id_ in session.execute(marks))
