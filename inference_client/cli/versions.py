"""`infer models versions`, `default`, `rollback` and the other commands about the versions of a model."""

from typing import TYPE_CHECKING, Annotated

import typer

from inference_client.cli.completion import complete_model
from inference_client.cli.display import Display
from inference_client.cli.output import JsonOption, print_json, print_line, print_table, show_moment
from inference_client.cli.server_options import server_options
from inference_client.cli.suggestions import suggesting_models
from inference_client.errors import DeploymentNotFound
from inference_client.models import ModelVersionView, ModelView
from inference_client.units import format_size

if TYPE_CHECKING:
    from inference_client.client import InferenceClient

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The model's name.", autocompletion=complete_model)]
ReferenceArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID[@VERSION]", help="The model's name, or one version of it.", autocompletion=complete_model
    ),
]


def add_version_commands(app: typer.Typer) -> None:
    """Add the commands to `infer models`."""
    app.command("versions")(list_versions)
    app.command("default")(choose_default)
    app.command("rollback")(roll_back)
    app.command("describe")(describe)
    app.command("retire")(retire)
    app.command("restore")(restore)
    app.command("delete")(delete)


def list_versions(context: typer.Context, human_readable_id: IdArgument, as_json: JsonOption = False) -> None:
    """List the versions of a model, newest first, with their tasks that wait (QUEUED) and run (HELD)."""
    with (
        server_options(context).connect(Display(quiet=as_json)) as client,
        suggesting_models(client, human_readable_id),
    ):
        versions = list(client.list_versions(human_readable_id))
    if as_json:
        print_json([view.model_dump(mode="json") for view in versions])
        return
    header = ("VERSION", "STATE", "QUEUED", "HELD", "IMAGE", "/MODEL", "REGISTERED", "DESCRIPTION")
    print_table(header, [_row(view) for view in versions])


def choose_default(
    context: typer.Context,
    reference: Annotated[
        str, typer.Argument(metavar="ID@VERSION", help="The model and the version.", autocompletion=complete_model)
    ],
    as_json: JsonOption = False,
) -> None:
    """Make a version the default: the one that the plain ID means."""
    name, version = _split(reference)
    if version is None:
        raise typer.BadParameter(f"name the version, as in {name}@3; infer models versions {name} lists them")
    display = Display(quiet=as_json)
    with server_options(context).connect(display) as client, suggesting_models(client, name):
        _tell_default(client, display, client.change_model(name, default_version=version), as_json=as_json)


def roll_back(context: typer.Context, human_readable_id: IdArgument, as_json: JsonOption = False) -> None:
    """Make the version before the default one the default; retired ones are passed over."""
    display = Display(quiet=as_json)
    with server_options(context).connect(display) as client, suggesting_models(client, human_readable_id):
        _tell_default(client, display, client.roll_back(human_readable_id), as_json=as_json)


def describe(
    context: typer.Context,
    reference: ReferenceArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What it does, for people.")],
    as_json: JsonOption = False,
) -> None:
    """Change the description of a model's default version, or of another one."""
    _change(context, reference, "described", as_json=as_json, description=text)


def retire(context: typer.Context, reference: ReferenceArgument, as_json: JsonOption = False) -> None:
    """Let a model, or one version of it, take no new tasks; those that it has go on, and so does its deployment."""
    _change(context, reference, "retired", as_json=as_json, retired=True)


def restore(context: typer.Context, reference: ReferenceArgument, as_json: JsonOption = False) -> None:
    """Bring a retired model or version back."""
    _change(context, reference, "restored", as_json=as_json, retired=False)


def delete(
    context: typer.Context,
    reference: ReferenceArgument,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask first; without a terminal nobody is asked.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a model with all its versions, or one version, for good. Its ended tasks stay."""
    name, version = _split(reference)
    display = Display(quiet=as_json)
    must_ask = display.can_ask and not yes and not as_json
    if must_ask and not typer.confirm(f"Delete {reference} for good?", default=False, err=True):
        display.say("nothing was deleted")
        return
    with server_options(context).connect(display) as client, suggesting_models(client, name):
        if version is None:
            client.delete_model(name)
        else:
            client.delete_version(name, version)
    display.say("deleted")
    if as_json:
        print_json({"human_readable_id": name, "version": version, "deleted": True})


def _split(reference: str) -> tuple[str, int | None]:
    name, at, version = reference.partition("@")
    if at and not (version.isascii() and version.isdigit()):
        raise typer.BadParameter(f"{reference}: a version is a number, as in {name}@3")
    return name, int(version) if at else None


def _change(
    context: typer.Context,
    reference: str,
    done: str,
    *,
    as_json: bool,
    description: str | None = None,
    retired: bool | None = None,
) -> None:
    name, version = _split(reference)
    display = Display(quiet=as_json)
    with server_options(context).connect(display) as client, suggesting_models(client, name):
        view: ModelView | ModelVersionView
        if version is None:
            view = client.change_model(name, description=description, retired=retired)
        else:
            view = client.change_version(name, version, description=description, retired=retired)
    display.say(done)
    if as_json:
        print_json(view)


def _tell_default(client: "InferenceClient", display: Display, model: ModelView, *, as_json: bool) -> None:
    name = model.human_readable_id
    if as_json:
        print_json(model)
        return
    print_line(f"{name}@{model.version}")
    try:
        deployed = client.get_deployment(name).model_version
    except DeploymentNotFound:
        return
    if deployed != model.version:
        display.say(
            f"live calls still go to version {deployed}, until the model is deployed again: infer deploy {name}"
        )


def _row(view: ModelVersionView) -> tuple[str, ...]:
    words = {"default": view.default, "deployed": view.deployed, "retired": view.retired}
    return (
        str(view.version),
        ", ".join(word for word, holds in words.items() if holds) or "-",
        str(view.queued),
        str(view.held),
        view.container_tag,
        "-" if view.archive is None else format_size(view.archive.size_bytes),
        show_moment(view.created_at),
        " ".join(view.description.split()),
    )
