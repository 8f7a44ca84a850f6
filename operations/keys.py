"""`inference-server keys`: who may use the server. It uses the database directly, without any running service.

Each command imports what it needs itself, so that it starts fast.
"""

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from contract.access import OWNER_PATTERN, Scope
from contract.quotas import Quota
from kit.settings import Duration
from operations.database import DataDir, fail, open_database, print_rows

if TYPE_CHECKING:
    from contract.keys import KeyQuotas, KeyView


def build_app() -> typer.Typer:
    """The commands below `keys`."""
    app = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke the keys of callers and consumers.")
    app.command()(create)
    app.command("list")(show)
    app.command()(rotate)
    app.command()(revoke)
    return app


def create(
    owner: Annotated[str, typer.Option(help="The owner of tasks submitted with it. Several keys may have one owner.")],
    scope: Annotated[list[Scope], typer.Option(help="What it allows; may be given several times.")],
    expires: Annotated[
        str | None, typer.Option(help="How long it is valid, as in 90d or 12h. Default: until it is revoked.")
    ] = None,
    quota: Annotated[
        list[str] | None,
        typer.Option(
            help="A limit of its own, as in queued=10, stored=50GiB or running=off; may be given several times. "
            "Default: the server's."
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it, this once: only a hash of its secret is stored."""
    from private_api.keys import create_key

    check_owner(owner, "--owner")
    if Scope.CONSUME in scope and (quota or len(set(scope)) > 1):
        raise typer.BadParameter("consume stands alone: the key of a consumer's host allows nothing else")
    lifetime = None if expires is None else _parse_lifetime(expires)
    quotas = _parse_quotas(quota or [])
    with open_database(data_dir) as database:
        key = create_key(database, owner=owner, scopes=scope, lifetime=lifetime, quotas=quotas)
    typer.echo("Keep it safe: it is not shown again.", err=True)
    typer.echo(key)


def show(
    owner: Annotated[str | None, typer.Option(help="Only those of this owner.")] = None, data_dir: DataDir = None
) -> None:
    """List every key without its secret."""
    from private_api.keys import list_keys

    with open_database(data_dir) as database:
        keys = list_keys(database, owner)
    header = ("ID", "OWNER", "SCOPES", "STATE", "CREATED", "EXPIRES", "LAST USED", "QUOTAS")
    print_rows([header, *(_row(key) for key in keys)])


def rotate(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The part between the underscores, as `list` shows it.")],
    overlap: Annotated[str, typer.Option(help="How long the old key stays valid, as in 7d; 0s: it ends now.")] = "24h",
    data_dir: DataDir = None,
) -> None:
    """Replace a key by a new one that allows the same, and print that, this once. For a while both are valid."""
    from private_api.keys import rotate_key

    until = _parse_time(overlap, "--overlap")
    with open_database(data_dir) as database:
        if (key := rotate_key(database, key_id, until)) is None:
            fail(f"no key has the id {key_id!r}; `inference-server keys list` shows them", code=1)
    typer.echo(f"Keep it safe: it is not shown again. The old key, {key_id}, ends in {overlap}.", err=True)
    typer.echo(key)


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


def _parse_time(text: str, option: str) -> timedelta:
    try:
        parsed: timedelta = TypeAdapter(Duration).validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"], param_hint=option) from error
    return parsed


def _parse_lifetime(text: str) -> timedelta:
    lifetime = _parse_time(text, "--expires")
    if not timedelta() < lifetime <= timedelta(days=36500):
        raise typer.BadParameter("a key must live, at most for a hundred years", param_hint="--expires")
    return lifetime


def _parse_quotas(texts: list[str]) -> "KeyQuotas":
    from inference_client.errors import UnusableInput
    from inference_client.quotas import parse_quotas

    try:
        return {Quota(quota): limit for quota, limit in parse_quotas(texts).items()}
    except UnusableInput as error:
        raise typer.BadParameter(error.detail, param_hint="--quota") from error


def _row(key: "KeyView") -> tuple[str, ...]:
    from inference_client.quotas import format_quotas

    moments = (key.created_at, key.expires_at, key.last_used_at)
    about = key.id, key.owner, " ".join(key.scopes), key.state
    return *about, *(_moment(moment) for moment in moments), format_quotas(key.quotas)


def _moment(moment: datetime | None) -> str:
    return "-" if moment is None else moment.isoformat(timespec="seconds")


app = build_app()
