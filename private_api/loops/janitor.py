"""Removes old results, files of deleted tasks and models, orphans of crashes, and ended replicas, as a loop's step.

Of a task that was deleted or is expired a tombstone stays, which is removed in the end.
"""

import logging
import time
from datetime import datetime, timedelta
from itertools import islice

from sqlalchemy import delete, or_, select

from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.deployment_tables import ReplicaRow
from private_api.loops.clock import look_at_clock, was_before
from private_api.settings import KEEP_RECORDS_FOR
from private_api.tables import ArchiveRow, ModelVersionRow, TaskRow
from private_api.task_logs import TaskLogs
from private_api.tasks.forget import forget_tasks, purge_tasks

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0
ORPHAN_AGE_S = 24 * 3600.0
"""Longer than any upload takes: a younger file may still be waiting for its row."""
_ORPHANS_EVERY_S = 3600.0
"""Between two looks at every file: none of them is in a hurry, and there may be a million."""
_PAGE = 100


class Janitor:
    """Updates rows first and removes archives second: what a crash leaves goes as an orphan once it is a day old."""

    def __init__(
        self,
        database: Database,
        store: ArchiveStore,
        logs: TaskLogs,
        *,
        keep_finished_for: timedelta,
        keep_records_for: timedelta = KEEP_RECORDS_FOR,
    ) -> None:
        self._database = database
        self._store = store
        self._logs = logs
        self._keep_finished_for = keep_finished_for
        self._keep_records_for = keep_records_for
        self._leaves_traces = True
        """Whether SQLite's files may still have what was removed."""
        self._orphans_at = time.monotonic()
        """When to look for orphans next."""

    def step(self) -> int:
        """Remove everything that is due. Returns how many files were removed."""
        now = look_at_clock(self._database)
        self._forget_replicas(now)
        self._forget_tasks(now)
        removed = self._remove_expired(now) + self._remove_zips_of_deleted_models()
        self._purge_tasks(now)
        if self._leaves_traces:
            self._leaves_traces = not self._database.wipe()
        if time.monotonic() >= self._orphans_at:
            removed += self._remove_orphans()
            self._remove_orphaned_logs()
            self._orphans_at = time.monotonic() + _ORPHANS_EVERY_S
        return removed

    def _forget_replicas(self, now: datetime) -> None:
        due = was_before(self._database, ReplicaRow.ended_at, now, self._keep_finished_for)
        with self._database.write() as session:
            gone = session.execute(delete(ReplicaRow).where(due).returning(ReplicaRow.id)).all()
        self._leaves_traces |= bool(gone)

    def _forget_tasks(self, now: datetime) -> None:
        expired = was_before(self._database, TaskRow.ended_at, now, self._keep_finished_for)
        while True:
            with self._database.write() as session:
                uids = forget_tasks(session, expired, now, limit=_PAGE)
                for uid in uids:
                    # Before the commit: afterwards nothing would look for it for a day.
                    self._logs.remove(uid)
            self._leaves_traces |= bool(uids)
            if len(uids) < _PAGE:
                return

    def _purge_tasks(self, now: datetime) -> None:
        outdated = was_before(self._database, TaskRow.ended_at, now, self._keep_records_for)
        while True:
            with self._database.write() as session:
                purged = purge_tasks(session, outdated, limit=_PAGE)
            self._leaves_traces |= bool(purged)
            if purged < _PAGE:
                return

    def _remove_expired(self, now: datetime) -> int:
        removed = 0
        expired = was_before(self._database, TaskRow.ended_at, now, self._keep_finished_for)
        while True:
            with self._database.write() as session:
                due = or_(TaskRow.deleted_at.is_not(None), expired)
                statement = (
                    select(ArchiveRow)
                    .join(TaskRow, or_(ArchiveRow.id == TaskRow.input_id, ArchiveRow.id == TaskRow.output_id))
                    .where(TaskRow.ended_at.is_not(None), due, ArchiveRow.removed_at.is_(None))
                    .order_by(ArchiveRow.id)
                    .limit(_PAGE)
                )
                page = session.scalars(statement).all()
                for archive in page:
                    archive.removed_at = now
            for archive in page:
                self._store.remove(archive.key)
            removed += len(page)
            if len(page) < _PAGE:
                return removed

    def _remove_zips_of_deleted_models(self) -> int:
        stands = ModelVersionRow.deleted_at.is_(None) & ModelVersionRow.archive_id.is_not(None)
        used = select(ModelVersionRow.archive_id).where(stands)
        deleted = select(ModelVersionRow.archive_id).where(ModelVersionRow.deleted_at.is_not(None))
        statement = select(ArchiveRow).where(
            ArchiveRow.removed_at.is_(None), ArchiveRow.id.in_(deleted), ArchiveRow.id.not_in(used)
        )
        with self._database.write() as session:
            now = self._database.now(session)
            # A registration locks the zip that it shares. Once its lock is ours, its version is seen here.
            locked = session.scalars(statement.with_for_update(skip_locked=True)).all()
            still_used = set(session.scalars(used))
            removed = [archive for archive in locked if archive.id not in still_used]
            for archive in removed:
                archive.removed_at = now
        for archive in removed:
            self._store.remove(archive.key)
        return len(removed)

    def _remove_orphans(self) -> int:
        removed = 0
        for path in self._store.stale_uploads(ORPHAN_AGE_S):
            path.unlink(missing_ok=True)
            removed += 1
        keys = self._store.kept_keys(ORPHAN_AGE_S)
        while page := list(islice(keys, _PAGE)):
            kept = select(ArchiveRow.key).where(ArchiveRow.key.in_(page), ArchiveRow.removed_at.is_(None))
            with self._database.read() as session:
                known = set(session.scalars(kept))
            for key in (each for each in page if each not in known):
                logger.info("removing %s: no task or model refers to it", key)
                self._store.remove(key)
                removed += 1
        return removed

    def _remove_orphaned_logs(self) -> None:
        """Remove what a crash left, or a piece of a log that arrived as its task was forgotten."""
        uids = self._logs.old_uids(ORPHAN_AGE_S)
        while page := set(islice(uids, _PAGE)):
            kept = select(TaskRow.uid).where(TaskRow.uid.in_(page), TaskRow.forgotten_at.is_(None))
            with self._database.read() as session:
                known = set(session.scalars(kept))
            for uid in page - known:
                self._logs.remove(uid)
