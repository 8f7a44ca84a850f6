"""`infer list`: the tasks that a key may see, and which of them to show."""

from itertools import islice
from typing import Annotated

import typer

from inference_client.cli.completion import complete_model
from inference_client.cli.display import Display
from inference_client.cli.output import JsonOption, print_json, print_table, show_moment, show_uid
from inference_client.cli.server_options import server_options
from inference_client.units import parse_since
from inference_client.wording import describe


def list_tasks(
    context: typer.Context,
    *,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody's; needs a key with the scope operate.")] = False,
    status: Annotated[
        list[str] | None, typer.Option(metavar="STATUS", help="Only with this status, as in failed; may be repeated.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Only of this model.", autocompletion=complete_model)
    ] = None,
    owner: Annotated[str | None, typer.Option(metavar="OWNER", help="Only of this owner.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only submitted since then: 2d ago, or at 2026-11-21.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="LABEL", help="Only with exactly this label.")] = None,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only with this text in uid, model, owner, consumer or detail.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The newest ones, at most this many.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the tasks that your key may see, newest first: yours, with the scope operate everybody's. Needs a key."""
    if everybody and owner is not None:
        raise typer.BadParameter("--all is everybody's, --owner one owner's: give one of them")
    moment = None if since is None else parse_since(since)
    with server_options(context).connect(Display(quiet=as_json)) as client:
        found = client.list_tasks(
            status=status or (),
            model=model,
            owner="*" if everybody else owner,
            since=moment,
            label=label,
            text=search,
        )
        tasks = list(islice(found, limit))
    if as_json:
        print_json([task.model_dump(mode="json") for task in tasks])
        return
    header: tuple[str, ...] = ("UID", "MODEL", "STATUS", "SUBMITTED")
    rows: list[tuple[str, ...]] = [
        (show_uid(task.uid), task.human_readable_id, describe(task), show_moment(task.created_at)) for task in tasks
    ]
    if everybody or len({task.owner for task in tasks}) > 1:
        header = (*header, "OWNER")
        rows = [(*row, task.owner or "-") for row, task in zip(rows, tasks, strict=True)]
    if any(task.label for task in tasks):
        header = (*header, "LABEL")
        rows = [(*row, task.label or "-") for row, task in zip(rows, tasks, strict=True)]
    print_table(header, rows)
