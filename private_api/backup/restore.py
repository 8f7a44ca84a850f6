"""Restores a server from a backup, into an empty database and data folder or not at all.

Everything is verified before anything changes. Files are placed before the rows that refer to them, and the rows
come in one transaction: a restore that is interrupted leaves an empty database, and a mark that says so.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, DateTime, Integer, Table, inspect, text
from sqlalchemy.orm import Session

from private_api.archives import ArchiveStore
from private_api.audit.record import OPERATOR, record
from private_api.audit_tables import Action
from private_api.backup.files import (
    BackupError,
    FileEntry,
    Manifest,
    copy_file,
    create_file,
    inside,
    read_entries,
    read_lines,
    read_manifest,
    verify,
)
from private_api.backup.write import reflect_tables
from private_api.database import Database
from private_api.deployments.expire import restart_deployments
from private_api.migrate import hold_off_migrations, known_revisions, migrate
from private_api.tasks.restart import restart_tasks

MARK = "restore.unfinished"
_PAGE = 500
_CHUNK_BYTES = 1024**2


@dataclass(frozen=True)
class Restored:
    """What a restore brought back."""

    manifest: Manifest
    restarted: int
    """Tasks that are queued again, under fences that no earlier holder has."""


def restore(database: Database, data_dir: Path, folder: Path) -> Restored:
    """Restore a backup. Raises `BackupError`, `ServiceUnavailable`, `StorageFull`, `OSError`.

    No service may use this database or data folder meanwhile.
    """
    manifest = read_manifest(folder)
    if manifest.revision not in known_revisions():
        raise BackupError(
            f"the backup has the schema {manifest.revision}, which this release does not know; "
            f"release {manifest.release} made it; restore it with that release or a newer one"
        )
    _require_empty_folder(data_dir)
    with database.snapshot() as connection:
        _require_no_tables(connection)
    verify(folder, manifest)
    mark = data_dir / MARK
    _set_mark(mark, folder)
    store = ArchiveStore(data_dir / "archives")
    for entry in read_entries(folder):
        _place(store, data_dir, folder, entry)
    # The archives' folders are synced one by one; this syncs those of the logs.
    os.sync()
    with database.load() as connection:
        hold_off_migrations(connection)
        _require_no_tables(connection)
        migrate(connection, manifest.revision)
        _load_tables(connection, folder, manifest)
        migrate(connection, "head")
        with Session(connection) as session:
            restarted = restart_tasks(database, session, lambda key: store.path(key).is_file())
            now = database.now(session)
            restart_deployments(session, now)
            record(session, OPERATOR, Action.RESTORE, "server", now, detail=f"the backup of {manifest.created_at}")
            session.flush()
    mark.unlink()
    return Restored(manifest, restarted)


def _require_empty_folder(data_dir: Path) -> None:
    mark = data_dir / MARK
    if mark.exists():
        raise BackupError(
            f"{mark}: an earlier restore was interrupted; empty the database and {data_dir}, then restore again"
        )
    found = [path for name in ("archives", "logs") for path in (data_dir / name).rglob("*") if path.is_file()]
    if found:
        raise BackupError(
            f"{data_dir} is not empty: it has {found[0].relative_to(data_dir)} and {len(found) - 1} more files; "
            "restore into an empty data folder"
        )


def _require_no_tables(connection: Connection) -> None:
    if names := sorted(inspect(connection).get_table_names()):
        raise BackupError(
            f"the database is not empty: it has the tables {', '.join(names)}; restore into an empty one, "
            "before any service starts on it"
        )


def _set_mark(mark: Path, folder: Path) -> None:
    with create_file(mark) as file:
        file.write(f"a restore from {folder} began at {datetime.now(UTC).isoformat()}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def _place(store: ArchiveStore, data_dir: Path, folder: Path, entry: FileEntry) -> None:
    source, (kind, _, name) = inside(folder, entry.path), entry.path.partition("/")
    if kind == "archives":
        upload = store.open_upload(entry.size_bytes)
        try:
            with source.open("rb") as reader:
                while chunk := reader.read(_CHUNK_BYTES):
                    upload.write(chunk)
            placed = upload.sha256
            if placed == entry.sha256:
                store.keep(upload, name)
        finally:
            upload.discard()
    else:
        placed, _ = copy_file(source, inside(data_dir / "logs", name))
    if placed != entry.sha256:
        raise BackupError(f"{source} changed while it was restored")


def _load_tables(connection: Connection, folder: Path, manifest: Manifest) -> None:
    tables = reflect_tables(connection)
    if {table.name for table in tables} != set(manifest.tables):
        raise BackupError(f"the backup's tables are not those of the schema {manifest.revision}")
    with _quiet_triggers(connection, tables):
        for table in tables:
            # A migration gave the new database an id of its own.
            connection.execute(table.delete())
            rows = (_from_json(connection, table, row) for row in read_lines(folder / "tables" / f"{table.name}.jsonl"))
            while page := list(islice(rows, _PAGE)):
                connection.execute(table.insert(), page)
    if connection.dialect.name == "postgresql":
        _reset_sequences(connection, tables)


def _from_json(connection: Connection, table: Table, row: dict[str, Any]) -> dict[str, Any]:
    for column in table.columns:
        value = row.get(column.name)
        if value is not None and isinstance(column.type, DateTime):
            moment = datetime.fromisoformat(value)
            row[column.name] = moment.replace(tzinfo=None) if connection.dialect.name == "sqlite" else moment
    return row


@contextmanager
def _quiet_triggers(connection: Connection, tables: list[Table]) -> Iterator[None]:
    """Keep triggers from writing an event for each row that is loaded."""
    if connection.dialect.name == "postgresql":
        quote = connection.dialect.identifier_preparer.quote
        for table in tables:
            connection.execute(text(f"ALTER TABLE {quote(table.name)} DISABLE TRIGGER USER"))
        yield
        for table in tables:
            connection.execute(text(f"ALTER TABLE {quote(table.name)} ENABLE TRIGGER USER"))
        return
    # SQLite cannot disable a trigger, but within a transaction it can be dropped and created again.
    statement = text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid")
    triggers = connection.execute(statement).all()
    for name, _ in triggers:
        connection.exec_driver_sql(f'DROP TRIGGER "{name}"')
    yield
    for _, sql in triggers:
        connection.exec_driver_sql(sql)


def _reset_sequences(connection: Connection, tables: list[Table]) -> None:
    quote = connection.dialect.identifier_preparer.quote
    for table in tables:
        for column in table.primary_key:
            if isinstance(column.type, Integer):
                name, key = quote(table.name), quote(column.name)
                connection.execute(
                    text(
                        f"SELECT setval(pg_get_serial_sequence(:name, :key), max({key})) FROM {name} "  # noqa: S608
                        f"HAVING max({key}) IS NOT NULL"
                    ),
                    {"name": name, "key": column.name},
                )
