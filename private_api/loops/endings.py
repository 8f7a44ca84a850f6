"""Wakes long polls of tasks that another process ended or deleted, as a loop's step.

What this process ends, it tells of at once. Each poll could look at its row now and then; of thousands, one query does.
"""

from sqlalchemy import or_, select

from private_api.database import Database
from private_api.tables import TaskRow
from private_api.watch import RECHECK_S, TaskWatch

INTERVAL_S = RECHECK_S
_PAGE = 500


class Endings:
    """Looks at the tasks that requests wait for."""

    def __init__(self, database: Database, watch: TaskWatch) -> None:
        self._database = database
        self._watch = watch

    def step(self) -> int:
        """Wake whoever waits for a task that has ended or is gone. Returns how many such tasks there are."""
        uids = self._watch.watched()
        ended: list[str] = []
        for page in (uids[begin : begin + _PAGE] for begin in range(0, len(uids), _PAGE)):
            is_over = or_(TaskRow.ended_at.is_not(None), TaskRow.deleted_at.is_not(None))
            with self._database.read() as session:
                ended += session.scalars(select(TaskRow.uid).where(TaskRow.uid.in_(page), is_over))
        for uid in ended:
            self._watch.notify(uid)
        return len(ended)
