"""`infer whoami`, `infer quota` and `infer keys`: who the key makes the caller, what that may have, and the keys that
it may see, make and revoke."""

import re
from datetime import datetime
from typing import Annotated

import typer

from inference_client.cli.display import Display
from inference_client.cli.output import JsonOption, print_facts, print_json, print_line, print_table, show_moment
from inference_client.cli.server_options import server_options
from inference_client.key_schemas import CreatedKey, KeyView, MeView, QuotaView
from inference_client.quotas import OFF, format_amount, format_quotas, parse_quotas
from inference_client.statuses import Scope
from inference_client.units import parse_duration

_WHOLE_KEY = re.compile(r"is_([0-9a-f]{16})(_[0-9a-f]{64})?")
_OtherOwner = Annotated[
    str | None, typer.Option("--owner", metavar="OWNER", help="Another owner; needs a key with the scope operate.")
]
_Owner = Annotated[str | None, typer.Option(metavar="OWNER", help="Another owner; needs a key with the scope admin.")]


def whoami(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show who your key makes you and what it allows; without a key, what the server allows without one."""
    with server_options(context).connect(Display(quiet=as_json)) as client:
        me, server = client.whoami(), client.server
    if as_json:
        print_json(me)
        return
    print_facts([("server", server), *_facts(me)])


def show_quota(context: typer.Context, *, owner: _OtherOwner = None, as_json: JsonOption = False) -> None:
    """Show what your owner may have of the server, and how much of that is used."""
    with server_options(context).connect(Display(quiet=as_json)) as client:
        found = client.quota(owner=owner)
    if as_json:
        print_json(found)
    elif found.owner is None:
        print_line("there are no quotas without a key")
    else:
        print_table(("QUOTA", "USED", "LIMIT"), [_quota(each) for each in found.quotas])


def build_keys_app() -> typer.Typer:
    """The command `keys` with its subcommands."""
    app = typer.Typer(help="List, make, rotate and revoke keys.", rich_markup_mode=None, invoke_without_command=True)
    app.callback()(list_keys)
    app.command()(create)
    app.command()(rotate)
    app.command()(revoke)
    return app


def list_keys(context: typer.Context, *, owner: _Owner = None, as_json: JsonOption = False) -> None:
    """List the keys of your owner, with the scope admin everybody's; their secrets are never shown."""
    if context.invoked_subcommand is not None:
        return
    with server_options(context).connect(Display(quiet=as_json)) as client:
        keys = list(client.list_keys(owner=owner))
    if as_json:
        print_json([key.model_dump(mode="json") for key in keys])
        return
    header = ("ID", "OWNER", "SCOPES", "STATE", "CREATED", "EXPIRES", "LAST USED", "QUOTAS")
    print_table(header, [_row(key) for key in keys])


def create(
    context: typer.Context,
    *,
    scope: Annotated[
        list[str],
        typer.Option(
            metavar="SCOPE", help=f"What it allows: {', '.join(Scope)}; may be repeated.", default_factory=list
        ),
    ],
    owner: _Owner = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long it is valid, as in 90d; by default as long as your own key."),
    ] = None,
    quota: Annotated[
        list[str],
        typer.Option(
            metavar="QUOTA",
            help="A limit of its own, as in queued=10, stored=50GiB or running=off; may be repeated.",
            default_factory=list,
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, this once. It may do and have no more, and lives no longer, than your own."""
    if not scope:
        raise typer.BadParameter("say what the key allows, as in --scope submit")
    lifetime_s = None if expires is None else parse_duration(expires)
    quotas = parse_quotas(quota)
    display = Display(quiet=as_json)
    with server_options(context).connect(display) as client:
        made = client.create_key(scope, owner=owner, lifetime_s=lifetime_s, quotas=quotas)
    if as_json:
        print_json(made)
        return
    _show_new(display, made)


def rotate(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `infer keys` shows it.")],
    *,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old key stays valid, as in 90s or 7d; 0s: it ends now.")
    ] = "24h",
    as_json: JsonOption = False,
) -> None:
    """Replace a key by a new one that allows the same, and print that, this once. For a while both are valid."""
    display = Display(quiet=as_json)
    with server_options(context).connect(display) as client:
        made = client.rotate_key(_id_of(key_id), overlap_s=0 if overlap in ("0", "0s") else parse_duration(overlap))
    if as_json:
        print_json(made)
        return
    _show_new(display, made)
    display.say(f"the old key, {_id_of(key_id)}, ends in {overlap}; until then change whatever uses it")


def revoke(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `infer keys` shows it.")],
    as_json: JsonOption = False,
) -> None:
    """End a key at once and for good. Its owner's tasks stay."""
    display = Display(quiet=as_json)
    named = _id_of(key_id)
    with server_options(context).connect(display) as client:
        client.revoke_key(named)
    if as_json:
        print_json({"id": named, "state": "revoked"})
        return
    display.say(f"revoked {named}")


def _id_of(text: str) -> str:
    # A whole key, pasted here, must not become part of a path: those are logged.
    match = _WHOLE_KEY.fullmatch(text.strip())
    return match[1] if match else text.strip()


def _show_new(display: Display, made: CreatedKey) -> None:
    until = "until it is revoked" if made.expires_at is None else f"until {show_moment(made.expires_at)}"
    display.say(f"key {made.id} of {made.owner}: {' '.join(made.scopes)}, {until}")
    display.say("Keep it safe: it is not shown again.")
    print_line(made.key)


def _facts(me: MeView) -> list[tuple[str, str]]:
    without = " ".join(me.anonymous_scopes) or "nothing"
    facts = [("owner", me.owner or "-"), ("key", me.key_id or "-"), ("scopes", " ".join(me.scopes) or "-")]
    facts += [("expires", _moment(me.expires_at))] if me.key_id else []
    asked = "every call needs one" if me.requires_key else f"optional; whoever reaches the server may: {without}"
    return [*facts, ("keys here", asked)]


def _row(key: KeyView) -> tuple[str, ...]:
    moments = (key.created_at, key.expires_at, key.last_used_at)
    about = key.id, key.owner, " ".join(key.scopes), str(key.state)
    return *about, *(_moment(moment) for moment in moments), format_quotas(key.quotas)


def _quota(view: QuotaView) -> tuple[str, ...]:
    limit = OFF if view.limit is None else format_amount(view.quota, view.limit)
    return str(view.quota), format_amount(view.quota, view.used), limit


def _moment(moment: datetime | None) -> str:
    return "-" if moment is None else show_moment(moment)
