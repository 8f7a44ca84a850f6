"""The rows that make stored zips visible."""

from datetime import datetime

from sqlalchemy import ScalarSelect, select
from sqlalchemy.orm import Session

from private_api.archives import StoredArchive
from private_api.round_trips import add_later
from private_api.tables import ArchiveRow


def keep_archive(session: Session, stored: StoredArchive, now: datetime, *, owner: str | None = None) -> ArchiveRow:
    """Add the row that makes a stored zip visible; `owner` is whose task it is of."""
    archive = _row(stored, now, owner)
    session.add(archive)
    session.flush()
    return archive


def add_archive(session: Session, stored: StoredArchive, now: datetime, *, owner: str | None) -> ScalarSelect[int]:
    """The same where nobody waits for the row: returns its id as later statements know it."""
    add_later(session, _row(stored, now, owner))
    return select(ArchiveRow.id).where(ArchiveRow.key == stored.key).scalar_subquery()


def _row(stored: StoredArchive, now: datetime, owner: str | None) -> ArchiveRow:
    return ArchiveRow(key=stored.key, sha256=stored.sha256, size_bytes=stored.size_bytes, owner=owner, created_at=now)
