"""Changes of tasks in the order of their ids, none left out: see `settling`."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from contract.access import Caller, Scope
from contract.events import TaskEvent
from private_api.database import Database
from private_api.tables import EventRow, ModelRow, ModelVersionRow, TaskRow

WINDOW = 500
"""How many ids one read covers, whatever part of them the caller may see: each query stays short."""


@dataclass(frozen=True)
class Change:
    """A change of a task's status, and its place among all of them."""

    id: int
    event: TaskEvent

    def is_open_to(self, caller: Caller, uids: frozenset[str]) -> bool:
        """Whether the caller, who named these uids or none, may see it."""
        return is_told(self.event.uid, self.event.owner, caller, uids)


def is_told(uid: str, owner: str | None, caller: Caller, uids: frozenset[str]) -> bool:
    """Whether a caller who named these uids, or none, hears of a task; of one without an owner by naming it."""
    if uids and uid not in uids:
        return False
    if caller.may(Scope.OPERATE):
        return True
    return bool(uids) if owner is None else owner == caller.owner


def newest_id(database: Database) -> int:
    """The largest id of all committed changes, 0 without any."""
    with database.read() as session:
        return session.scalar(select(func.max(EventRow.id))) or 0


def read_changes(session: Session, *, after: int, until: int) -> Sequence[Change]:
    """The changes with ids above `after` and up to `until`, in the order of ids."""
    statement = (
        select(EventRow, TaskRow.uid, TaskRow.owner, ModelRow.human_readable_id)
        .join(TaskRow, TaskRow.id == EventRow.task_id)
        .join(ModelVersionRow, ModelVersionRow.id == TaskRow.model_version_id)
        .join(ModelRow, ModelRow.id == ModelVersionRow.model_id)
        .where(EventRow.id > after, EventRow.id <= until)
        .order_by(EventRow.id)
    )
    return [_change(row, uid, owner, model) for row, uid, owner, model in session.execute(statement)]


def _change(row: EventRow, uid: str, owner: str | None, human_readable_id: str) -> Change:
    event = TaskEvent(
        uid=uid,
        owner=owner,
        human_readable_id=human_readable_id,
        at=row.at,
        old_status=row.old_status if row.old_status else None,
        new_status=row.new_status,
        fence=row.fence,
        reason=row.reason if row.reason else None,
    )
    return Change(row.id, event)
