"""Copies everything the private API holds while it runs: first the rows, then the files.

All rows are of one moment. A file that such a row refers to exists by then and never changes, so copying files
later still gives those of that moment; the few that retention removes meanwhile are listed as removed.
"""

import logging
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, Table, select

from private_api.archives import ArchiveStore
from private_api.audit.record import OPERATOR, record_alone
from private_api.audit_tables import Action, AuditEventRow
from private_api.backup.files import (
    FILES,
    BackupError,
    FileEntry,
    LinesWriter,
    Listing,
    Manifest,
    copy_file,
    read_lines,
    write_manifest,
)
from private_api.database import Database
from private_api.migrate import VERSION_TABLE, current_revision
from private_api.tables import ArchiveRow, AttemptRow, TaskRow
from private_api.task_logs import TaskLogs

logger = logging.getLogger(__name__)

_PAGE = 500
_LOG_LIST = "logs.jsonl"


def back_up(database: Database, store: ArchiveStore, logs: TaskLogs, folder: Path) -> Manifest:
    """Write a backup into an empty or missing folder. Returns what it holds.

    Services may run meanwhile; migrations wait. Raises `BackupError`, `ServiceUnavailable`, and `OSError` if the
    folder cannot be written; what was written by then is no backup.
    """
    if folder.exists() and any(folder.iterdir()):
        raise BackupError(f"{folder} is not empty; choose a new folder for every backup")
    with database.snapshot() as connection:
        created_at = datetime.now(UTC)
        revision = current_revision(connection)
        if revision is None:
            raise BackupError("the database has no tables yet: there is nothing to back up")
        tables = {table.name: _dump(connection, table, folder) for table in reflect_tables(connection)}
        _list_logs(connection, folder)
    with LinesWriter(folder / FILES) as files:
        copies = _Copies(files, folder)
        for row in read_lines(folder / "tables" / "archives.jsonl"):
            if row["removed_at"] is None:
                _copy_archive(database, store, row, copies)
        for row in read_lines(folder / _LOG_LIST):
            _copy_log(logs, row["uid"], row["fence"], copies)
    (folder / _LOG_LIST).unlink()
    if AuditEventRow.__tablename__ in tables:
        record_alone(database, OPERATOR, Action.BACK_UP, "server")
    manifest = Manifest(
        release=version("inference-server"),
        revision=revision,
        created_at=created_at,
        tables=tables,
        files=files.listing,
        size_bytes=copies.size_bytes,
        removed=copies.removed,
        damaged=copies.damaged,
    )
    write_manifest(folder, manifest)
    return manifest


def reflect_tables(connection: Connection) -> list[Table]:
    """The tables as the database has them, whatever its revision, each after those it refers to."""
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != VERSION_TABLE]


class _Copies:
    """Lists and counts what was copied, and what could not be."""

    def __init__(self, files: LinesWriter, folder: Path) -> None:
        self.folder = folder
        self.size_bytes = self.removed = self.damaged = 0
        self._files = files

    def add(self, entry: FileEntry) -> None:
        self._files.write(entry.model_dump())
        self.size_bytes += entry.size_bytes if entry.state == "kept" else 0
        self.removed += entry.state == "removed"
        self.damaged += entry.state == "damaged"


def _dump(connection: Connection, table: Table, folder: Path) -> Listing:
    rows = connection.execution_options(yield_per=_PAGE).execute(select(table).order_by(*table.primary_key))
    with LinesWriter(folder / "tables" / f"{table.name}.jsonl") as writer:
        for row in rows.mappings():
            writer.write({name: _to_json(value) for name, value in row.items()})
    return writer.listing


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        # SQLite stores no zone, and every moment is UTC.
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)).isoformat()
    return value


def _list_logs(connection: Connection, folder: Path) -> None:
    """List the logs there may be at the moment of the rows: a later task's log would belong to no row."""
    statement = select(TaskRow.uid, AttemptRow.fence).join(TaskRow, TaskRow.id == AttemptRow.task_id)
    rows = connection.execution_options(yield_per=_PAGE).execute(statement.order_by(AttemptRow.id))
    with LinesWriter(folder / _LOG_LIST) as writer:
        for uid, fence in rows:
            writer.write({"uid": uid, "fence": fence})


def _copy_archive(database: Database, store: ArchiveStore, row: dict[str, Any], copies: _Copies) -> None:
    key, sha256 = row["key"], row["sha256"]
    entry = FileEntry(path=f"archives/{key}", sha256=sha256, size_bytes=row["size_bytes"])
    target = copies.folder / entry.path
    try:
        if copy_file(store.path(key), target) != (sha256, entry.size_bytes):
            target.unlink()
            logger.error("archive %s does not have the sha256 of its row; it is not in the backup", key)
            entry = entry.model_copy(update={"state": "damaged"})
    except FileNotFoundError:
        was_removed = _was_removed(database, key)
        if not was_removed:
            logger.error("archive %s is missing on the server; it is not in the backup", key)
        entry = entry.model_copy(update={"state": "removed" if was_removed else "damaged"})
    copies.add(entry)


def _was_removed(database: Database, key: str) -> bool:
    with database.read() as session:
        return session.scalar(select(ArchiveRow.removed_at).where(ArchiveRow.key == key)) is not None


def _copy_log(logs: TaskLogs, uid: str, fence: int, copies: _Copies) -> None:
    # None if this attempt wrote nothing, or retention removed the log with its task.
    for source in logs.files(uid, fence):
        path = f"logs/{source.relative_to(logs.root)}"
        try:
            # The log may grow meanwhile; what was written by now is copied.
            sha256, size = copy_file(source, copies.folder / path)
        except FileNotFoundError:
            continue
        copies.add(FileEntry(path=path, sha256=sha256, size_bytes=size))
