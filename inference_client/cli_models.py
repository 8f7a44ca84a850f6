"""`infer models ...`."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import ValidationError

from contract.schemas import ModelRegistration, ModelView
from inference_client.display import Display
from inference_client.errors import UnusableInput
from inference_client.session import JsonOption, print_json, print_table, session_of
from inference_client.units import format_duration, format_size, parse_duration, parse_size


def build_models_app() -> typer.Typer:
    """The group of commands."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Register models and look at them.")
    app.command("add")(add_model)
    app.command("list")(list_models)
    app.command("show")(show_model)
    return app


def add_model(
    context: typer.Context,
    container_tag: Annotated[str, typer.Argument(metavar="CONTAINER_TAG", help="The Docker image to run.")],
    human_readable_id: Annotated[str, typer.Argument(metavar="ID", help="The model's name, to submit tasks to.")],
    *,
    archive: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A zip with static content for /model.")
    ] = None,
    archive_folder: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="The same as a folder; it is zipped on the way.")
    ] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    gpu: Annotated[bool, typer.Option("--gpu", help="A task needs a GPU.")] = False,
    pull_policy: Annotated[
        Literal["missing", "always", "never"], typer.Option(help="When the image is pulled.")
    ] = "missing",
    isolation: Annotated[
        Literal["strict", "compatible"],
        typer.Option(help="`compatible` is for images that need their own user or a writable root file system."),
    ] = "strict",
    time_limit: Annotated[str, typer.Option(help="How long one run may take: seconds, or as in 2h or 1h30m.")] = "24h",
    memory: Annotated[str | None, typer.Option(help="Memory of one run: bytes, or as in 4GiB.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Make a new version where the ID exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Register the image CONTAINER_TAG as the model ID, and print the ID."""
    if archive and archive_folder:
        raise typer.BadParameter("give --archive or --archive-folder, not both")
    display = Display(quiet=as_json)
    content = archive or archive_folder
    try:
        registration = ModelRegistration(
            human_readable_id=human_readable_id,
            container_tag=container_tag,
            description=description,
            model_available=content is not None,
            use_gpu=gpu,
            pull_policy=pull_policy,
            isolation=isolation,
            time_limit_s=parse_duration(time_limit),
            memory_limit_bytes=None if memory is None else parse_size(memory),
            replace=replace,
        )
    except ValidationError as error:
        faults = "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        raise UnusableInput(faults) from error
    with session_of(context).connect(display) as client:
        if content is None:
            model = client.add_model(registration)
        else:
            with display.show_transfer("sent") as on_progress:
                model = client.add_model(registration, content, on_progress=on_progress)
    display.say(f"registered, version {model.version}")
    print_json(model) if as_json else typer.echo(model.human_readable_id)


def list_models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the registered models."""
    with session_of(context).connect(Display(quiet=as_json)) as client:
        models = list(client.list_models())
    if as_json:
        print_json([model.model_dump(mode="json") for model in models])
    else:
        print_table([("ID", "VERSION", "GPU", "IMAGE", "DESCRIPTION"), *map(_row, models)])


def show_model(
    context: typer.Context,
    human_readable_id: Annotated[str, typer.Argument(metavar="ID", help="The model's name.")],
    as_json: JsonOption = False,
) -> None:
    """Show one model."""
    with session_of(context).connect(Display(quiet=as_json)) as client:
        model = client.get_model(human_readable_id)
    print_json(model) if as_json else print_table(_facts(model))


def _row(model: ModelView) -> tuple[str, ...]:
    gpu = "yes" if model.use_gpu else "no"
    return model.human_readable_id, str(model.version), gpu, model.container_tag, " ".join(model.description.split())


def _facts(model: ModelView) -> list[tuple[str, ...]]:
    archive, memory = model.archive, model.memory_limit_bytes
    return [
        ("id", model.human_readable_id),
        ("version", str(model.version)),
        ("image", model.container_tag),
        ("description", model.description),
        ("gpu", "yes" if model.use_gpu else "no"),
        ("pull policy", model.pull_policy),
        ("isolation", model.isolation),
        ("time limit", format_duration(model.time_limit_s)),
        ("memory", "the consumer's limit" if memory is None else format_size(memory)),
        ("/model", "empty" if archive is None else f"{format_size(archive.size_bytes)}, sha256 {archive.sha256}"),
        ("registered", model.created_at.isoformat(timespec="seconds")),
    ]
