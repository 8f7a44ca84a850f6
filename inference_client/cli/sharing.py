"""`infer models share` and `give`: who may use a model, and whose it is."""

from typing import Annotated

import typer

from inference_client.cli.display import Display
from inference_client.cli.output import JsonOption, print_json, print_line
from inference_client.cli.server_options import server_options
from inference_client.cli.suggestions import suggesting_models
from inference_client.cli.versions import IdArgument
from inference_client.models import ModelView


def add_sharing_commands(app: typer.Typer) -> None:
    """Add the commands to `infer models`."""
    app.command("share")(share)
    app.command("give")(give)


def share(
    context: typer.Context,
    human_readable_id: IdArgument,
    owners: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OWNER]...", help="Owners of keys; they take the place of those named before."),
    ] = None,
    *,
    everybody: Annotated[bool, typer.Option("--everybody", help="Whoever may use the server.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let only the model's owner and each OWNER use it, without any OWNER its owner alone; or everybody."""
    if everybody and owners:
        raise typer.BadParameter("name owners, or give --everybody, not both")
    with (
        server_options(context).connect(Display(quiet=as_json)) as client,
        suggesting_models(client, human_readable_id),
    ):
        users = None if everybody else owners or []
        model = client.change_model(human_readable_id, restricted=not everybody, users=users)
    print_json(model) if as_json else print_line(f"{model.human_readable_id} is for {say_for_whom(model)}")


def give(
    context: typer.Context,
    human_readable_id: IdArgument,
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="Whose it is from now on: an owner of keys.")],
    as_json: JsonOption = False,
) -> None:
    """Give a model to another owner, who alone may change it then. Needs a key with the scope operate."""
    with (
        server_options(context).connect(Display(quiet=as_json)) as client,
        suggesting_models(client, human_readable_id),
    ):
        model = client.change_model(human_readable_id, owner=owner)
    print_json(model) if as_json else print_line(f"{model.human_readable_id} belongs to {owner}")


def say_for_whom(model: ModelView) -> str:
    """Who may use it, as far as the server tells this caller."""
    return ", ".join(["its owner", *model.users]) if model.restricted else "everybody"
