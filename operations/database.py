"""What the commands share that use the database directly, without any running service.

Each command imports what it needs itself, so that it starts fast.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from contract.errors import InferenceError
from kit.settings import SettingsError

if TYPE_CHECKING:
    from private_api.database import Database

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="The data folder of a standalone server. Without it: the database that POSTGRES_... or DATABASE_URL name."
    ),
]


@contextmanager
def open_database(data_dir: Path | None) -> "Iterator[Database]":
    """The database, migrated, so that this may run before a server ever did. Errors end the command."""
    from private_api.database import Database
    from private_api.migrate import MayNotMigrate, upgrade

    database = Database(_url(data_dir), pool_size=2)
    try:
        database.check()
        upgrade(database)
        yield database
    except InferenceError as error:
        fail(error.detail)
    except MayNotMigrate as error:
        fail(str(error))
    finally:
        database.close()


def print_rows(rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table whose first row is its header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _url(data_dir: Path | None) -> str:
    if data_dir is not None:
        path = data_dir.absolute() / "inference.db"
        if not path.is_file():
            fail(f"{data_dir} is not the data folder of a standalone server: it has no inference.db")
        return f"sqlite:///{path}"
    from private_api.settings import DatabaseSettings

    try:
        return DatabaseSettings.load().effective_database_url
    except SettingsError as error:
        fail(f"{error}\nRun it where the private API runs, or name a standalone server's --data-dir.")


def fail(text: str, *, code: int = 2) -> NoReturn:
    """End the command with this text and exit code."""
    typer.echo(f"inference-server: {text}", err=True)
    raise typer.Exit(code)
