"""Whose tasks may be claimed: of an owner who runs as many as it may, none.

All that chooses among tasks asks here, so that a task which its owner's quota holds back neither takes a GPU from a
model that is kept warm nor keeps it from one. What an owner may run is therefore in the database: the task's own limit,
of the key that submitted it, else the server's.
"""

from collections import defaultdict

from sqlalchemy import ColumnElement, and_, func, or_, select, true, update
from sqlalchemy.orm import Session

from contract.quotas import Quota
from contract.statuses import HELD, Status
from private_api.database import Database
from private_api.quotas.limits import Limits
from private_api.server_tables import ServerRow
from private_api.tables import TaskRow

NO_LIMIT = 0
"""Of a task: any number of its owner's may run. NULL: what the server says."""


def note_default(database: Database, limits: Limits) -> None:
    """Have the database know what an owner may run by default, from now on."""
    with database.read() as session:
        # A service also starts while nothing can be written.
        if _default(session) == limits[Quota.RUNNING]:
            return
    with database.write() as session:
        session.execute(update(ServerRow).values(running_limit=limits[Quota.RUNNING]))


def stored_limit(quotas: Limits) -> int | None:
    """What the row of a task has that was submitted with these limits of a key's own."""
    if Quota.RUNNING not in quotas:
        return None
    return quotas[Quota.RUNNING] or NO_LIMIT


def may_run(session: Session) -> ColumnElement[bool]:
    """The condition that a queued task's owner may run one more, as things stand."""
    held = (
        select(TaskRow.owner, func.count())
        .where(TaskRow.status.in_(HELD), TaskRow.owner.is_not(None))
        .group_by(TaskRow.owner)
    )
    owners_by_count: dict[int, list[str]] = defaultdict(list)
    for owner, count in session.execute(held):
        owners_by_count[count].append(str(owner))
    if not owners_by_count:
        return true()
    limit = func.coalesce(TaskRow.running_limit, _default(session) or NO_LIMIT)
    full = [
        and_(TaskRow.owner.in_(sorted(owners)), limit.between(1, count)) for count, owners in owners_by_count.items()
    ]
    return or_(TaskRow.owner.is_(None), ~or_(*full))


def find_limit(session: Session, row: TaskRow) -> int | None:
    """How many tasks of its owner may run for this one to be claimed; None for any number."""
    if row.owner is None:
        return None
    return (_default(session) if row.running_limit is None else row.running_limit) or None


def find_full_quota(session: Session, row: TaskRow) -> int | None:
    """The limit that holds a queued task back; None if none does."""
    limit = find_limit(session, row)
    return limit if limit is not None and _count_running(session, row) >= limit else None


def is_within_quota(database: Database, session: Session, task_id: int) -> bool:
    """Whether the owner of a task that this transaction claimed runs no more with it than it may.

    Until the transaction ends, no other claim of a task of this owner gets an answer.
    """
    row = session.get_one(TaskRow, task_id, populate_existing=True)
    limit = find_limit(session, row)
    if limit is None:
        return True
    database.serialize(session, f"running tasks of {row.owner}")
    return _count_running(session, row) <= limit


def next_held_back(session: Session, ended: TaskRow) -> TaskRow | None:
    """The owner's first task that may run now, if it waited for one like `ended`, which just did."""
    if ended.owner is None:
        return None
    order = (TaskRow.priority.desc(), TaskRow.not_before, TaskRow.id)
    waiting = select(TaskRow).where(TaskRow.owner == ended.owner, TaskRow.status == Status.QUEUED, may_run(session))
    row = session.scalars(waiting.order_by(*order).limit(1)).first()
    limit = None if row is None else find_limit(session, row)
    return row if limit is not None and _count_running(session, ended) + 1 >= limit else None


def _count_running(session: Session, row: TaskRow) -> int:
    """How many tasks of this one's owner consumers hold."""
    held = select(func.count()).where(TaskRow.owner == row.owner, TaskRow.status.in_(HELD))
    return session.scalar(held) or 0


def _default(session: Session) -> int | None:
    return session.scalars(select(ServerRow.running_limit)).one()
