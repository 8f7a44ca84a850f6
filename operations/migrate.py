"""`inference-server migrate`: brings the database to this release, and gives the services a login of their own."""

import os
from pathlib import Path

import typer

from contract.errors import InferenceError
from kit.logging import configure_logging
from kit.settings import SettingsError
from operations.database import fail
from operations.secrets import write_whole
from private_api.database import Database
from private_api.migrate import MayNotMigrate, upgrade_when_reachable
from private_api.roles import NoRoleError, make_services_role
from private_api.settings import DatabaseSettings


def report(login: Path | None) -> None:
    """Wait for the database, migrate it, and write the services' URL to `login`. Errors end the command."""
    configure_logging("WARNING", "text")
    try:
        database = Database(DatabaseSettings.load().effective_database_url, pool_size=2)
        upgrade_when_reachable(database)
        typer.echo("the database has the schema of this release")
        if login is not None:
            write_whole(login, _url_for_services(database), owner=os.geteuid())
    except SettingsError as error:
        fail(str(error))
    except (InferenceError, MayNotMigrate) as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}")


def _url_for_services(database: Database) -> str:
    try:
        url = make_services_role(database)
    except NoRoleError as error:
        typer.echo(
            f"the services log in as the owner of the tables, who could change the audit trail: {error}", err=True
        )
        return database.url
    typer.echo("the services have a login of their own, which cannot change the audit trail")
    return url
