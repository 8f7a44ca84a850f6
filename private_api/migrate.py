"""Migrates the database to the newest schema, also when several processes start at once."""

import logging
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from private_api.database import Database, lacks_right

logger = logging.getLogger(__name__)

VERSION_TABLE = "alembic_version"
_RETRY_S = 2.0
_ADVISORY_LOCK = 4_711_551
"""Any constant that no other user of the database picks."""


class MayNotMigrate(Exception):
    """The database needs a migration, and this role may not change its tables. The text says what to do."""


def upgrade_when_reachable(database: Database) -> None:
    """Migrate as soon as the database answers. Until then, log every few seconds why it does not.

    Raises `MayNotMigrate`.
    """
    while True:
        try:
            upgrade(database)
        except OperationalError as error:
            # The driver's text names host, user and database, never the password.
            _wait(str(error.orig))
        else:
            return


def await_migrated(database: Database) -> None:
    """Migrate; as a role that may not, wait until `inference-server migrate` has done it."""
    while True:
        try:
            upgrade_when_reachable(database)
        except MayNotMigrate as error:
            _wait(str(error))
        else:
            return


def _wait(reason: str) -> None:
    logger.warning("waiting for the database: %s", " ".join(reason.split()))
    time.sleep(_RETRY_S)


def upgrade(database: Database, revision: str = "head") -> None:
    """Migrate to a revision, by default the newest. Processes that start meanwhile wait for it.

    Raises `MayNotMigrate`.
    """
    try:
        _upgrade(database, revision)
    except ProgrammingError as error:
        if not lacks_right(error):
            raise
        raise MayNotMigrate(
            f"the database is not migrated to {known_revisions()[-1]}, and this role may not do it: "
            "`inference-server migrate` does, as the role that owns the tables"
        ) from error


def _upgrade(database: Database, revision: str) -> None:
    with database.engine.connect() as lock, database.engine.connect() as connection:
        if not database.is_sqlite:
            # Held by the session `lock`, not by the transaction that migrates. Waiting for it must not time out.
            lock.execute(text("SET statement_timeout = 0"))
            lock.execute(text("SET lock_timeout = 0"))
            lock.execute(text("SELECT pg_advisory_lock(:id)"), {"id": _ADVISORY_LOCK})
            lock.commit()
            connection.execute(text("SET statement_timeout = 0"))
            connection.commit()
        try:
            connection.execution_options(writes=True)
            # One transaction for all steps. SQLite has no other lock, and of its own accord Alembic would commit each
            # step there, so that two processes took the same one.
            with connection.begin():
                migrate(connection, revision)
        finally:
            connection.invalidate()
            if not database.is_sqlite:
                # Closing the session frees the lock and forgets the settings above.
                lock.invalidate()


def migrate(connection: Connection, revision: str) -> None:
    """Migrate to this revision, in the caller's transaction if one has begun."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def hold_off_migrations(connection: Connection) -> None:
    """Keep others from migrating until the caller's transaction ends. SQLite allows one writer at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _ADVISORY_LOCK})


def current_revision(connection: Connection) -> str | None:
    """The revision of the database, or None if it was never migrated."""
    return MigrationContext.configure(connection).get_current_revision()


def known_revisions() -> list[str]:
    """Every revision that this release knows, oldest first."""
    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
