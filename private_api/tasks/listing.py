"""Pages of the tasks that a caller may see, by filters. Each filter has an index that also gives the order."""

from sqlalchemy import ColumnElement, Select, String, and_, cast, or_, select, true
from sqlalchemy.orm import joinedload

from contract.access import Caller, Scope
from contract.errors import InvalidRequest, PermissionDenied, Unauthenticated
from contract.overview import EVERYBODY, TaskListQuery
from contract.schemas import TaskView
from private_api.database import Database
from private_api.tables import ModelRow, ModelVersionRow, TaskRow
from private_api.tasks.read import as_seen_by, view_task


def list_tasks(database: Database, caller: Caller, query: TaskListQuery) -> list[TaskView]:
    """A page of the tasks that the caller may see, newest first: its own, with the scope operate everybody's.

    They lack position, eta, waits_for, log_tail and warnings, which cost further queries, and other owners' tasks
    detail and label, unless the caller has the scope admin. `query.after` is the last uid of the page before; it may
    have been deleted since. Raises `Unauthenticated` without a key, `PermissionDenied` for another owner's tasks, and
    `InvalidRequest`.
    """
    visible = _visible(caller, query.owner)
    page = select(TaskRow).options(joinedload(TaskRow.input), joinedload(TaskRow.output))
    page = page.where(visible, TaskRow.deleted_at.is_(None), *_filters(caller, query))
    with database.read() as session:
        if query.after is not None:
            last = session.execute(
                select(TaskRow.created_at, TaskRow.id).where(visible, TaskRow.uid == query.after)
            ).one_or_none()
            if last is None:
                raise InvalidRequest("after: none of these tasks has this uid")
            # The first condition alone is the range of the index; a row comparison would not be one on every database.
            page = page.where(
                TaskRow.created_at <= last.created_at,
                or_(TaskRow.created_at < last.created_at, TaskRow.id < last.id),
            )
        page = page.order_by(TaskRow.created_at.desc(), TaskRow.id.desc()).limit(query.limit)
        return [as_seen_by(caller, view_task(row)) for row in session.scalars(page)]


def _visible(caller: Caller, owner: str | None) -> ColumnElement[bool]:
    if caller.owner is None:
        raise Unauthenticated("the list is that of a key's owner: X-API-Key: <key>, or Authorization: Bearer <key>")
    if caller.may(Scope.OPERATE):
        return true() if owner in (None, EVERYBODY) else TaskRow.owner == owner
    if owner not in (None, caller.owner):
        raise PermissionDenied("The tasks of other owners need a key with the scope operate.")
    return TaskRow.owner == caller.owner


def _filters(caller: Caller, query: TaskListQuery) -> list[ColumnElement[bool]]:
    filters: list[ColumnElement[bool]] = []
    if query.status:
        filters.append(TaskRow.status.in_(query.status))
    if query.model is not None:
        filters.append(TaskRow.model_version_id.in_(_versions(_is_named(query.model.lower()))))
    if query.since is not None:
        filters.append(TaskRow.created_at >= query.since)
    if query.label is not None:
        filters.append(and_(TaskRow.label == query.label, _is_readable(caller)))
    if query.q is not None:
        filters.append(_contains(caller, query.q))
    return filters


def _contains(caller: Caller, text: str) -> ColumnElement[bool]:
    return or_(
        TaskRow.uid.startswith(text.lower(), autoescape=True),
        TaskRow.owner.icontains(text, autoescape=True),
        TaskRow.lease_owner.icontains(text, autoescape=True),
        TaskRow.model_version_id.in_(_versions(ModelRow.human_readable_id.icontains(text, autoescape=True))),
        and_(_is_readable(caller), TaskRow.detail.icontains(text, autoescape=True)),
    )


def _is_named(reference: str) -> ColumnElement[bool]:
    pinned = ModelRow.human_readable_id + "@" + cast(ModelVersionRow.number, String)
    return or_(ModelRow.human_readable_id == reference, pinned == reference)


def _is_readable(caller: Caller) -> ColumnElement[bool]:
    """Whether the caller gets to read what may name files or patients."""
    return true() if caller.may(Scope.ADMIN) else or_(TaskRow.owner.is_(None), TaskRow.owner == caller.owner)


def _versions(condition: ColumnElement[bool]) -> Select[int]:
    return select(ModelVersionRow.id).join(ModelVersionRow.model).where(condition)
