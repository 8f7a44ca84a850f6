"""Reads stored archives again, little by little, and notes those whose bytes are not what was stored any more."""

import errno
import hashlib
from datetime import timedelta

from sqlalchemy import select

from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.soundness import note_damaged, note_sound
from private_api.tables import ArchiveRow

INTERVAL_S = 60.0
BYTES_PER_STEP = 256 * 1024**2
"""At a step per minute 4 MiB/s, which a disk hardly feels: 360 GiB a day."""
_LEAST_BYTES = 256 * 1024
"""What an archive counts for at least: it costs a query and a write, too."""
_REST = timedelta(days=1)
"""How long an archive that was found whole is left alone."""
_DAMAGED_REST = timedelta(hours=1)
"""The same for a damaged one, which somebody may have restored."""
_CHUNK_BYTES = 1024**2
_NOT_READABLE = (errno.ENOENT, errno.EIO)
"""How a file that is missing says so, and a disk that lost it."""


class _Reading:
    """An archive that is being read, and how far that is."""

    def __init__(self, key: str, sha256: str) -> None:
        self.key = key
        self.sha256 = sha256
        self.position = 0
        self.digest = hashlib.sha256()


class Scrub:
    """Goes round all archives: those that were never read first, then the one that was read longest ago.

    Each row remembers when that was, so a restart goes on where this was; only of the archive that was being read the
    beginning is read twice.
    """

    def __init__(self, database: Database, store: ArchiveStore, *, bytes_per_step: int = BYTES_PER_STEP) -> None:
        self._database = database
        self._store = store
        self._bytes_per_step = bytes_per_step
        self._reading: _Reading | None = None

    def step(self) -> None:
        """Read on, about `bytes_per_step`."""
        left = self._bytes_per_step
        while left > 0 and (reading := self._reading or self._next()):
            self._reading = reading
            before = reading.position
            is_sound = self._read(reading, left)
            left -= max(_LEAST_BYTES, reading.position - before)
            if is_sound is not None:
                (note_sound if is_sound else note_damaged)(self._database, reading.key)
                self._reading = None

    def _next(self) -> _Reading | None:
        kept, is_sound = select(ArchiveRow).where(ArchiveRow.removed_at.is_(None)), ArchiveRow.damaged_at.is_(None)
        unread, was_read = ArchiveRow.checked_at.is_(None), ArchiveRow.checked_at.is_not(None)
        oldest = (
            (kept.where(was_read, ~is_sound), _DAMAGED_REST),
            (kept.where(unread), _REST),
            (kept.where(was_read, is_sound), _REST),
        )
        with self._database.read() as session:
            now = self._database.now(session)
            for statement, rest in oldest:
                row = session.scalars(statement.order_by(ArchiveRow.checked_at, ArchiveRow.id).limit(1)).first()
                if row is not None and (row.checked_at or row.created_at) < now - rest:
                    return _Reading(row.key, row.sha256)
        return None

    def _read(self, reading: _Reading, most: int) -> bool | None:
        """Read on, at most `most` bytes. Returns whether the archive is whole, None while that is not known."""
        try:
            with self._store.path(reading.key).open("rb") as file:
                file.seek(reading.position)
                while most > 0:
                    chunk = file.read(min(_CHUNK_BYTES, most))
                    if not chunk:
                        return reading.digest.hexdigest() == reading.sha256
                    reading.digest.update(chunk)
                    reading.position += len(chunk)
                    most -= len(chunk)
        except OSError as error:
            if error.errno not in _NOT_READABLE:
                raise
            return False
        return None
