"""Whose tasks may be claimed: of an owner who runs as many as it may, none.

All that chooses among tasks asks here, so that a task which its owner's quota holds back neither takes a GPU from a
model that is kept warm nor keeps it from one. What an owner may run is therefore in the database: the task's own limit,
of the key that submitted it, else the server's.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, true, update
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
    held = [(str(owner), count) for owner, count in session.execute(held_by_owner())]
    return within_quotas(held, _default(session) if held else None)


def held_by_owner() -> Select[str | None, int]:
    """How many tasks of each owner consumers hold; only of those who have any."""
    held = select(TaskRow.owner, func.count().label("count")).where(TaskRow.status.in_(HELD))
    return held.where(TaskRow.owner.is_not(None)).group_by(TaskRow.owner)


def within_quotas(held: Iterable[tuple[str, int]], default: int | None) -> ColumnElement[bool]:
    """The condition that a queued task's owner may run one more beside what is held, with this limit by default."""
    owners_by_count: dict[int, list[str]] = defaultdict(list)
    for owner, count in held:
        owners_by_count[count].append(owner)
    if not owners_by_count:
        return true()
    limit = func.coalesce(TaskRow.running_limit, default or NO_LIMIT)
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
    return limit if limit is not None and (session.scalar(_running_of(row.owner)) or 0) >= limit else None


def is_within_quota(database: Database, session: Session, row: TaskRow, default: int | None) -> bool:
    """Whether the owner of a task that this transaction claimed runs no more with it than it may.

    `default` is the server's limit. Until the transaction ends, no other claim of a task of this owner gets an answer.
    """
    limit = default if row.running_limit is None else row.running_limit
    if row.owner is None or not limit:
        return True
    database.serialize(session, f"running tasks of {row.owner}")
    return (session.scalar(_running_of(row.owner)) or 0) <= limit


def next_held_back(owner: str) -> Select[str, bool, datetime]:
    """Uid, kind and begin of the owner's first task that may run now, if it waited for one of them that just ended."""
    running = _running_of(owner).scalar_subquery()
    default = select(ServerRow.running_limit).scalar_subquery()
    limit = func.coalesce(TaskRow.running_limit, default, NO_LIMIT)
    order = (TaskRow.priority.desc(), TaskRow.not_before, TaskRow.id)
    first = (
        select(TaskRow.uid, TaskRow.use_gpu, TaskRow.not_before, limit.label("limit"))
        .where(TaskRow.owner == owner, TaskRow.status == Status.QUEUED, ~limit.between(1, running))
        .order_by(*order)
        .limit(1)
        .subquery()
    )
    was_held_back = and_(first.c.limit != NO_LIMIT, running + 1 >= first.c.limit)
    return select(first.c.uid, first.c.use_gpu, first.c.not_before).where(was_held_back)


def _running_of(owner: str | None) -> Select[int]:
    """How many of the owner's tasks consumers hold."""
    return select(func.count()).where(TaskRow.owner == owner, TaskRow.status.in_(HELD))


def _default(session: Session) -> int | None:
    return session.scalars(select(ServerRow.running_limit)).one()
