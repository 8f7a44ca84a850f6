"""`inference-server keys`: who may use the server. It uses the database directly, without any running service.

Each command imports what it needs itself, so that it starts fast.
"""

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from contract.access import OWNER_PATTERN, Scope
from kit.settings import Duration
from operations.database import DataDir, fail, open_database, print_rows

if TYPE_CHECKING:
    from contract.keys import KeyView


def build_app() -> typer.Typer:
    """The commands below `keys`."""
    app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the keys that callers and consumers show.")
    app.command()(create)
    app.command("list")(show)
    app.command()(revoke)
    return app


def create(
    owner: Annotated[str, typer.Option(help="The owner of tasks submitted with it. Several keys may have one owner.")],
    scope: Annotated[list[Scope], typer.Option(help="What it allows; may be given several times.")],
    expires: Annotated[
        str | None, typer.Option(help="How long it is valid, as in 90d or 12h. Default: until it is revoked.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it, this once: only a hash of its secret is stored."""
    from private_api.keys import create_key

    check_owner(owner, "--owner")
    if Scope.CONSUME in scope and len(set(scope)) > 1:
        raise typer.BadParameter("consume stands alone: the key of a consumer's host allows nothing else")
    lifetime = None if expires is None else _parse_lifetime(expires)
    with open_database(data_dir) as database:
        key = create_key(database, owner=owner, scopes=scope, lifetime=lifetime)
    typer.echo("Keep it safe: it is not shown again.", err=True)
    typer.echo(key)


def show(data_dir: DataDir = None) -> None:
    """List every key without its secret."""
    from private_api.keys import list_keys

    with open_database(data_dir) as database:
        keys = list_keys(database)
    rows = [("ID", "OWNER", "SCOPES", "STATE", "CREATED", "EXPIRES", "LAST USED"), *(_row(key) for key in keys)]
    print_rows(rows)


def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The part between the underscores, as `list` shows it.")],
    data_dir: DataDir = None,
) -> None:
    """End a key at once and for good. Its owner's tasks stay."""
    from private_api.keys import revoke_key

    with open_database(data_dir) as database:
        if not revoke_key(database, key_id):
            fail(f"no key has the id {key_id!r}; `inference-server keys list` shows them", code=1)
    typer.echo(f"revoked {key_id}", err=True)


def check_owner(owner: str, parameter: str) -> None:
    """Raises `typer.BadParameter` if no owner can be called so."""
    if not re.fullmatch(OWNER_PATTERN, owner):
        raise typer.BadParameter(
            "an owner is 1 to 128 letters, digits, '.', '_', '@' or '-', the first a letter or digit",
            param_hint=parameter,
        )


def _parse_lifetime(text: str) -> timedelta:
    try:
        lifetime: timedelta = TypeAdapter(Duration).validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"], param_hint="--expires") from error
    if not timedelta() < lifetime <= timedelta(days=36500):
        raise typer.BadParameter("a key must live, at most for a hundred years", param_hint="--expires")
    return lifetime


def _row(key: "KeyView") -> tuple[str, ...]:
    moments = (key.created_at, key.expires_at, key.last_used_at)
    return key.id, key.owner, " ".join(key.scopes), key.state, *(_moment(moment) for moment in moments)


def _moment(moment: datetime | None) -> str:
    return "-" if moment is None else moment.isoformat(timespec="seconds")


app = build_app()
