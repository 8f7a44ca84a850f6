"""What an owner uses, counted where it is: nothing is kept that could drift from the tasks and archives themselves."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from contract.keys import OwnerQuotas, QuotaView
from contract.quotas import Quota
from contract.statuses import HELD, Status
from private_api.quotas.limits import Limits
from private_api.tables import ArchiveRow, TaskRow

_DAY = timedelta(days=1)


def read_usage(session: Session, owner: str, quota: Quota, now: datetime) -> int:
    """What the owner uses of a quota; of `UPLOADS` and `REQUESTS`, which no row tells, nothing."""
    if quota is Quota.QUEUED:
        return _count(session, owner, TaskRow.status == Status.QUEUED)
    if quota is Quota.RUNNING:
        return _count(session, owner, TaskRow.status.in_(HELD))
    if quota is Quota.STORED:
        kept = select(func.sum(ArchiveRow.size_bytes)).where(ArchiveRow.owner == owner, ArchiveRow.removed_at.is_(None))
        return int(session.scalar(kept) or 0)
    if quota is Quota.DAILY:
        uploads = select(func.sum(ArchiveRow.size_bytes)).select_from(TaskRow).join(TaskRow.input)
        return int(session.scalar(uploads.where(*_uploaded_today(owner, now))) or 0)
    return 0


def read_quotas(
    session: Session, owner: str, limits: Limits, now: datetime, *, counted: Mapping[Quota, int]
) -> OwnerQuotas:
    """What the owner uses of each quota; `counted` is what no row tells."""
    used = {quota: read_usage(session, owner, quota, now) for quota in Quota} | dict(counted)
    views = [QuotaView(quota=quota, unit=quota.unit, limit=limits[quota], used=used[quota]) for quota in Quota]
    return OwnerQuotas(owner=owner, quotas=views)


def seconds_until_room(session: Session, owner: str, needed_bytes: int, now: datetime) -> int | None:
    """When so many bytes of the last 24 hours' uploads will be older than that; None if there are not so many."""
    order = (TaskRow.created_at, TaskRow.id)
    uploads = (
        select(TaskRow.created_at, func.sum(ArchiveRow.size_bytes).over(order_by=order).label("freed"))
        .join(TaskRow.input)
        .where(*_uploaded_today(owner, now))
        .subquery()
    )
    last = session.scalar(select(func.min(uploads.c.created_at)).where(uploads.c.freed >= needed_bytes))
    return None if last is None else max(1, math.ceil((last + _DAY - now).total_seconds()))


def _count(session: Session, owner: str, condition: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(TaskRow).where(TaskRow.owner == owner, condition)) or 0


def _uploaded_today(owner: str, now: datetime) -> tuple[ColumnElement[bool], ...]:
    # A rerun uploads nothing.
    return TaskRow.owner == owner, TaskRow.created_at > now - _DAY, TaskRow.rerun_of.is_(None)
