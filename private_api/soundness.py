"""Whether the bytes of archives still are what was stored, as far as anybody has read them."""

import logging

from sqlalchemy import func, select, update

from private_api.database import Database
from private_api.tables import ArchiveRow

logger = logging.getLogger(__name__)


def note_sound(database: Database, key: str) -> None:
    """Note that the bytes were read just now and are what was stored, also of an archive that was damaged before."""
    with database.write() as session:
        now = database.now(session)
        session.execute(
            update(ArchiveRow).where(ArchiveRow.key == key).values(checked_at=now, damaged_at=None),
            execution_options={"synchronize_session": False},
        )


def note_damaged(database: Database, key: str) -> None:
    """Note that the bytes are not what was stored, and tell operators. Nothing if the archive was removed meanwhile."""
    with database.write() as session:
        now = database.now(session)
        found = session.execute(
            update(ArchiveRow)
            .where(ArchiveRow.key == key, ArchiveRow.removed_at.is_(None))
            .values(checked_at=now, damaged_at=func.coalesce(ArchiveRow.damaged_at, now))
            .returning(ArchiveRow.id),
            execution_options={"synchronize_session": False},
        ).first()
    if found is not None:
        logger.error(
            "the archive %s is damaged or missing: its bytes are not those that were stored. Restore the file from a "
            "backup; it is read again within an hour, and given out if it is whole",
            key,
        )


def count_damaged(database: Database) -> int:
    """How many archives that should be there are known to be damaged."""
    statement = select(func.count()).where(ArchiveRow.removed_at.is_(None), ArchiveRow.damaged_at.is_not(None))
    with database.read() as session:
        return session.scalar(statement) or 0
