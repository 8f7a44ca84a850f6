"""Brings a database to the newest schema; safe when several processes start at once."""

import logging
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from private_api.database import Database

logger = logging.getLogger(__name__)

_RETRY_S = 2.0
_ADVISORY_LOCK = 4_711_551
"""Any constant that no other user of the database picks."""


def upgrade_when_reachable(database: Database) -> None:
    """Migrate as soon as the database answers; until then say every few seconds why it does not."""
    while True:
        try:
            upgrade(database)
        except OperationalError as error:
            # The driver's text names host, user and database, never the password.
            logger.warning("waiting for the database: %s", " ".join(str(error.orig).split()))
            time.sleep(_RETRY_S)
        else:
            return


def upgrade(database: Database, revision: str = "head") -> None:
    """Migrate to a revision, by default the newest. Others that start meanwhile wait for it."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with database.engine.connect() as lock, database.engine.connect() as connection:
        if not database.is_sqlite:
            # Held by the session `lock`, not by the transaction that migrates. Whoever waits must not time out.
            lock.execute(text("SET statement_timeout = 0"))
            lock.execute(text("SET lock_timeout = 0"))
            lock.execute(text("SELECT pg_advisory_lock(:id)"), {"id": _ADVISORY_LOCK})
            lock.commit()
            connection.execute(text("SET statement_timeout = 0"))
            connection.commit()
        config.attributes["connection"] = connection.execution_options(writes=True)
        try:
            command.upgrade(config, revision)
            connection.commit()
        finally:
            connection.invalidate()
            if not database.is_sqlite:
                # Closing the session frees the lock and forgets the settings above.
                lock.invalidate()
