"""Removes old results, files of deleted tasks and models, and ended replicas, as a loop's step.

Of a task that was deleted or is expired a tombstone stays, which is removed in the end. `loops.orphans` removes what
crashes left.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, select

from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.deployment_tables import ReplicaRow
from private_api.loops.clock import look_at_clock, was_before
from private_api.settings import KEEP_RECORDS_FOR
from private_api.tables import ArchiveRow, ModelVersionRow, TaskRow
from private_api.task_logs import TaskLogs
from private_api.tasks.forget import IS_DELETED, Remains, forget_tasks, purge_tasks

INTERVAL_S = 60.0
_PAGE = 100
"""How many rows of each kind a step is about: others wait for its transactions some hundredths of a second."""


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
        self.is_behind = False
        """Whether the last step left something that is due: the next one should follow at once."""

    def step(self) -> int:
        """Remove what is due, a page of each kind. Returns how many files of archives were removed."""
        self.is_behind = False
        now = look_at_clock(self._database)
        expired = was_before(self._database, TaskRow.ended_at, now, self._keep_finished_for)
        outdated = was_before(self._database, TaskRow.ended_at, now, self._keep_records_for)
        self._forget_replicas(now)
        # What somebody asked to be deleted goes before what is old.
        removed = self._forget_tasks(IS_DELETED, now) + self._forget_tasks(expired, now)
        removed += self._remove_zips_of_deleted_models() + self._purge_tasks(outdated)
        if self._leaves_traces:
            self._leaves_traces = not self._database.wipe()
        return removed

    def _forget_replicas(self, now: datetime) -> None:
        due = was_before(self._database, ReplicaRow.ended_at, now, self._keep_finished_for)
        page = select(ReplicaRow.id).where(due).limit(_PAGE)
        with self._database.write() as session:
            gone = session.execute(delete(ReplicaRow).where(ReplicaRow.id.in_(page)).returning(ReplicaRow.id)).all()
        self._note(len(gone))

    def _forget_tasks(self, due: ColumnElement[bool], now: datetime) -> int:
        with self._database.write() as session:
            remains = forget_tasks(session, due, now, limit=_PAGE)
            for uid, fence in remains.logs:
                # Before the commit: afterwards nothing would look for it for a day.
                self._logs.remove(uid, fence)
        return self._remove_rest(remains)

    def _purge_tasks(self, outdated: ColumnElement[bool]) -> int:
        with self._database.write() as session:
            remains = purge_tasks(session, outdated, limit=_PAGE)
        return self._remove_rest(remains)

    def _remove_rest(self, remains: Remains) -> int:
        self._note(len(remains.logs))
        self._remove_archives(remains.keys)
        return len(remains.keys)

    def _note(self, count: int) -> None:
        """A page had so many rows."""
        self._leaves_traces |= count > 0
        self.is_behind |= count == _PAGE

    def _remove_archives(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._store.remove(key)

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
        self._remove_archives([archive.key for archive in removed])
        return len(removed)
