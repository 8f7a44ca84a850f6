"""Removes what crashes left in the folders of archives and logs, as a loop's step: files that no row speaks of."""

import logging
import time
from collections.abc import Iterator
from itertools import islice

from sqlalchemy import or_, select

from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.tables import ArchiveRow, TaskRow
from private_api.task_logs import TaskLogs, task_of
from private_api.tasks.forget import close_archives

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
ORPHAN_AGE_S = 24 * 3600.0
"""Longer than any upload takes: a younger file may still be waiting for its row."""
_EVERY_S = 24 * 3600.0
"""Between the beginnings of two walks past every file: none of them is in a hurry, and there may be millions."""
_AGAIN_S = 3600.0
"""Until another walk begins in place of one that failed."""
_PAGE = 100
_PAGES = 10
"""How many are asked about in a step, which takes about a tenth of a second: a million files take a quarter of an
hour, in which nothing else waits."""


class Orphans:
    """Walks past every file once a day, a few pages a step."""

    def __init__(self, database: Database, store: ArchiveStore, logs: TaskLogs) -> None:
        self._database = database
        self._store = store
        self._logs = logs
        self._walk: Iterator[int] = iter(())
        self._begins_at = time.monotonic()
        """When the next walk begins."""

    def step(self) -> int:
        """Go on with the walk, or begin one that is due. Returns how many files were removed."""
        if time.monotonic() >= self._begins_at:
            self._begins_at = time.monotonic() + _EVERY_S
            self._walk = self._pages()
        try:
            return sum(islice(self._walk, _PAGES))
        except BaseException:
            # A walk that broke off cannot be gone on with.
            self._begins_at = time.monotonic() + _AGAIN_S
            raise

    def _pages(self) -> Iterator[int]:
        """Look at one page after the other; each number is how many of its files were removed."""
        for path in self._store.stale_uploads(ORPHAN_AGE_S):
            path.unlink(missing_ok=True)
            yield 1
        keys = self._store.kept_keys(ORPHAN_AGE_S)
        while page := list(islice(keys, _PAGE)):
            yield self._remove_archives(page)
        names = self._logs.old_names(ORPHAN_AGE_S)
        while page := list(islice(names, _PAGE)):
            yield self._remove_logs(page)

    def _remove_archives(self, keys: list[str]) -> int:
        self._close_archives_of_tombstones(keys)
        kept = select(ArchiveRow.key).where(ArchiveRow.key.in_(keys), ArchiveRow.removed_at.is_(None))
        with self._database.read() as session:
            known = set(session.scalars(kept))
        orphans = [key for key in keys if key not in known]
        for key in orphans:
            logger.info("removing %s: no task or model refers to it", key)
            self._store.remove(key)
        return len(orphans)

    def _close_archives_of_tombstones(self, keys: list[str]) -> None:
        """A release before this one made the tombstone first, and may not have come to its archives."""
        with self._database.read() as session:
            ids = session.scalars(
                select(ArchiveRow.id).where(ArchiveRow.key.in_(keys), ArchiveRow.removed_at.is_(None))
            ).all()
            of_any = or_(TaskRow.input_id.in_(ids), TaskRow.output_id.in_(ids))
            columns = select(TaskRow.input_id, TaskRow.output_id).where(of_any, TaskRow.forgotten_at.is_not(None))
            left = [each for row in session.execute(columns) for each in row]
        if left:
            with self._database.write() as session:
                close_archives(session, left, self._database.now(session))

    def _remove_logs(self, names: list[str]) -> int:
        """Remove what a crash left, or a piece of a log that arrived as its task was forgotten."""
        kept = select(TaskRow.uid).where(TaskRow.uid.in_({task_of(name) for name in names}))
        with self._database.read() as session:
            known = set(session.scalars(kept.where(TaskRow.forgotten_at.is_(None))))
        orphans = [name for name in names if task_of(name) not in known]
        for name in orphans:
            self._logs.remove_file(name)
        # Of a log, nobody counts the files.
        return 0
