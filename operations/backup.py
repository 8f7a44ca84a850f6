"""`inference-server backup` and `restore`, run where the private API's variables and data folder are."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from contract.errors import InferenceError
from kit.logging import configure_logging
from kit.settings import SettingsError
from private_api.archives import ArchiveStore
from private_api.backup.files import BackupError
from private_api.backup.restore import restore
from private_api.backup.write import back_up
from private_api.database import Database
from private_api.settings import DatabaseSettings
from private_api.task_logs import TaskLogs

_STANDALONE_DATABASE = "inference.db"
_CANNOT = 2


class BackupSettings(DatabaseSettings):
    """Where everything is that a backup holds."""

    data_dir: Path = Path("/data")


def report_backup(folder: Path, data_dir: Path | None) -> int:
    """Back up and report the result. Returns the exit code: 1 for a complete backup of a server with lost files."""
    try:
        with _plain_faults():
            if data_dir is not None and not (data_dir / _STANDALONE_DATABASE).is_file():
                raise BackupError(f"{data_dir} is not the data folder of a standalone server")
            database, root = _open_server(data_dir)
            if not root.is_dir():
                raise BackupError(f"the data folder {root} does not exist; set DATA_DIR to where it is")
            manifest = back_up(database, ArchiveStore(root / "archives"), TaskLogs(root / "logs"), folder)
    except BackupError as error:
        typer.echo(f"cannot back up: {error}", err=True)
        return _CANNOT
    files = manifest.files.lines - manifest.removed - manifest.damaged
    typer.echo(
        f"backup complete: {manifest.tables['tasks'].lines} tasks as of {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC, "
        f"{files} files of {manifest.size_bytes} bytes"
    )
    if manifest.removed:
        typer.echo(f"{manifest.removed} files were removed by retention or deletion while the backup ran")
    if manifest.damaged:
        typer.echo(
            f"{manifest.damaged} files were missing or damaged on the server itself; the log above names them", err=True
        )
    return 1 if manifest.damaged else 0


def report_restore(folder: Path, data_dir: Path | None) -> int:
    """Restore and report the result. Returns the exit code."""
    try:
        with _plain_faults():
            if data_dir is not None:
                data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            restored = restore(*_open_server(data_dir), folder)
    except BackupError as error:
        typer.echo(f"cannot restore: {error}", err=True)
        return _CANNOT
    manifest = restored.manifest
    typer.echo(
        f"restored: {manifest.tables['tasks'].lines} tasks as of {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC, "
        f"{restored.restarted} of them wait to run"
    )
    return 0


def _open_server(data_dir: Path | None) -> tuple[Database, Path]:
    if data_dir is not None:
        configure_logging("WARNING", "text")
        return Database(f"sqlite:///{data_dir.absolute() / _STANDALONE_DATABASE}"), data_dir
    settings = BackupSettings.load()
    configure_logging("WARNING", settings.log_format)
    return Database(settings.effective_database_url), settings.data_dir


@contextmanager
def _plain_faults() -> Iterator[None]:
    """Turn errors that an operator can fix into a `BackupError`."""
    try:
        yield
    except SettingsError as error:
        raise BackupError(str(error)) from error
    except InferenceError as error:
        # The driver's own text, if there is one: it names host, user and database, never the password.
        cause = getattr(error.__cause__, "orig", None) or error.detail
        raise BackupError(" ".join(str(cause).split())) from error
    except PermissionError as error:
        raise BackupError(
            f"{error.filename}: {error.strerror}; run this as the owner of that folder, not as user {os.getuid()}"
        ) from error
    except OSError as error:
        raise BackupError(f"{error.filename or 'the disk'}: {error.strerror}") from error
