"""Removes what nobody may see any more: old results, deleted tasks' files, orphans of crashes, ended replicas.

A loop's step.
"""

import logging
from datetime import timedelta

from sqlalchemy import delete, or_, select

from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.deployment_tables import ReplicaRow
from private_api.tables import ArchiveRow, TaskRow
from private_api.task_logs import TaskLogs

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0
ORPHAN_AGE_S = 24 * 3600.0
"""Longer than any upload takes: a younger file may still be waiting for its row."""
_PAGE = 100


class Janitor:
    """Rows first, archives second: what a crash leaves between goes as an orphan once it is a day old."""

    def __init__(
        self, database: Database, store: ArchiveStore, logs: TaskLogs, *, keep_finished_for: timedelta
    ) -> None:
        self._database = database
        self._store = store
        self._logs = logs
        self._keep_finished_for = keep_finished_for

    def step(self) -> int:
        """Remove everything that is due; returns how many files went."""
        self._forget_replicas()
        return self._remove_expired() + self._remove_orphans()

    def _forget_replicas(self) -> None:
        with self._database.write() as session:
            oldest = self._database.now(session) - self._keep_finished_for
            session.execute(delete(ReplicaRow).where(ReplicaRow.ended_at < oldest))

    def _remove_expired(self) -> int:
        removed = 0
        while True:
            with self._database.write() as session:
                now = self._database.now(session)
                due = or_(TaskRow.deleted_at.is_not(None), TaskRow.ended_at < now - self._keep_finished_for)
                statement = (
                    select(TaskRow.uid, ArchiveRow)
                    .join(ArchiveRow, or_(ArchiveRow.id == TaskRow.input_id, ArchiveRow.id == TaskRow.output_id))
                    .where(TaskRow.ended_at.is_not(None), due, ArchiveRow.removed_at.is_(None))
                    .order_by(ArchiveRow.id)
                    .limit(_PAGE)
                )
                page = session.execute(statement).all()
                for uid, archive in page:
                    archive.removed_at = now
                    # Before the commit: no row remembers a log, so nothing would find it after a crash.
                    self._logs.remove(uid)
            for _, archive in page:
                self._store.remove(archive.key)
            removed += len(page)
            if len(page) < _PAGE:
                return removed

    def _remove_orphans(self) -> int:
        removed = 0
        for path in self._store.stale_uploads(ORPHAN_AGE_S):
            path.unlink(missing_ok=True)
            removed += 1
        for key in self._store.kept_keys(ORPHAN_AGE_S):
            with self._database.read() as session:
                row = session.scalars(select(ArchiveRow).where(ArchiveRow.key == key)).one_or_none()
            if row is None or row.removed_at is not None:
                logger.info("removing %s: no task or model refers to it", key)
                self._store.remove(key)
                removed += 1
        return removed
