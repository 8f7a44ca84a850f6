"""`infer models`: registering models and looking at them."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError

from inference_client.cli.display import Display
from inference_client.cli.image_options import (
    Cpus,
    Memory,
    PidsLimit,
    RunLimits,
    SharedMemory,
    StrictOutput,
    Temporary,
)
from inference_client.cli.output import JsonOption, print_facts, print_json, print_line, print_table, show_moment
from inference_client.cli.server_options import server_options
from inference_client.cli.sharing import add_sharing_commands, say_for_whom
from inference_client.cli.suggestions import suggesting_models
from inference_client.cli.versions import ReferenceArgument, add_version_commands
from inference_client.errors import UnusableInput
from inference_client.models import ImageFinding, ModelRegistration, ModelView
from inference_client.statuses import Finding
from inference_client.units import format_duration, format_size, parse_duration

if TYPE_CHECKING:
    from inference_client.client import InferenceClient

_FOUND: dict[str, str] = {Finding.IN_REGISTRY: "in registry", Finding.NOT_FOUND: "not found"}
"""Findings whose words are not their names."""


def build_models_app() -> typer.Typer:
    """The subcommands of `infer models`."""
    app = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="Register models, look at them, choose versions."
    )
    app.command("add")(add_model)
    app.command("list")(list_models)
    app.command("show")(show_model)
    add_version_commands(app)
    add_sharing_commands(app)
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
        Path | None,
        typer.Option(exists=True, file_okay=False, help="The same as a folder; it is zipped while it is sent."),
    ] = None,
    description: Annotated[str, typer.Option(help="What the model does, for people.")] = "",
    gpu: Annotated[bool, typer.Option("--gpu", help="A task needs a GPU.")] = False,
    pull_policy: Annotated[
        Literal["missing", "always", "never"], typer.Option(help="When the image is pulled.")
    ] = "missing",
    isolation: Annotated[
        Literal["strict", "compatible"],
        typer.Option(help="`compatible` is for images that need their own user or a writable root file system."),
    ] = "strict",
    time_limit: Annotated[str, typer.Option(help="How long one run may take: seconds, or as in 2h or 1h30m.")] = "24h",
    memory: Memory = None,
    shared_memory: SharedMemory = None,
    temporary: Temporary = None,
    pids_limit: PidsLimit = None,
    cpus: Cpus = None,
    runtime: Annotated[
        str | None, typer.Option(help="The Engine's runtime for its containers, such as runsc, if the server has it.")
    ] = None,
    strict_output: StrictOutput = False,
    pin: Annotated[
        bool | None,
        typer.Option(
            "--pin/--no-pin",
            help="Whether every run is of the image that the tag stands for now. Default: if a registry has it.",
            show_default=False,
        ),
    ] = None,
    restricted: Annotated[
        bool,
        typer.Option("--restricted", help="Only you and those you share it with may use it; see infer models share."),
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="If the ID is registered already, make a new version, the default.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Register the image CONTAINER_TAG as the model ID, and print the ID."""
    if archive and archive_folder:
        raise typer.BadParameter("give --archive or --archive-folder, not both")
    display = Display(quiet=as_json)
    with server_options(context).connect(display) as client:
        model = register(
            client,
            display,
            archive or archive_folder,
            human_readable_id=human_readable_id,
            container_tag=container_tag,
            description=description,
            use_gpu=gpu,
            pull_policy=pull_policy,
            isolation=isolation,
            runtime=runtime,
            strict_output=strict_output,
            time_limit=time_limit,
            limits=RunLimits(memory, shared_memory, temporary, pids_limit, cpus),
            pin=pin,
            restricted=restricted or None,
            replace=replace,
        )
    print_json(model) if as_json else print_line(model.human_readable_id)


def register(
    client: "InferenceClient",
    display: Display,
    content: Path | None,
    *,
    time_limit: str,
    limits: RunLimits,
    **fields: Any,
) -> ModelView:
    """Register a model, with the zip or folder `content` for /model. Raises `UnusableInput` for a faulty value."""
    try:
        registration = ModelRegistration(
            **fields,
            model_available=content is not None,
            time_limit_s=parse_duration(time_limit),
            **limits.fields(),
        )
    except ValidationError as error:
        faults = "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        raise UnusableInput(faults) from error
    if content is None:
        model = client.add_model(registration)
    else:
        with display.show_transfer("sent") as on_progress:
            model = client.add_model(registration, content, on_progress=on_progress)
    display.say(f"registered, version {model.version}")
    for warning in model.warnings:
        display.warn(warning)
    if model.retired:
        name = model.human_readable_id
        display.say(f"the model is retired and takes no tasks; bring it back with: infer models restore {name}")
    return model


def list_models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the registered models."""
    with server_options(context).connect(Display(quiet=as_json)) as client:
        models = list(client.list_models())
    if as_json:
        print_json([model.model_dump(mode="json") for model in models])
    else:
        print_table(("ID", "VERSION", "GPU", "IMAGE", "FOUND", "DESCRIPTION"), [_row(model) for model in models])


def show_model(
    context: typer.Context,
    reference: ReferenceArgument,
    as_json: JsonOption = False,
) -> None:
    """Show one model in its default version, or another version of it."""
    with server_options(context).connect(Display(quiet=as_json)) as client, suggesting_models(client, reference):
        model = client.get_model(reference)
    print_json(model) if as_json else print_facts(_facts(model))


def _row(model: ModelView) -> tuple[str, ...]:
    gpu = "yes" if model.use_gpu else "no"
    description = " ".join(model.description.split())
    return model.human_readable_id, _describe_version(model), gpu, model.container_tag, _say_found(model), description


def _say_found(model: ModelView) -> str:
    """What the consumers found of its image, in a word for each finding."""
    findings = Counter(image.finding for image in model.images)
    if len(findings) < 2:
        return "".join(_FOUND.get(finding, finding) for finding in findings)
    return ", ".join(f"{count} {_FOUND.get(finding, finding)}" for finding, count in sorted(findings.items()))


def _describe_version(model: ModelView) -> str:
    return f"{model.version}, retired" if model.retired else str(model.version)


def _facts(model: ModelView) -> list[tuple[str, str]]:
    archive = model.archive
    return [
        ("id", model.human_readable_id),
        ("version", _describe_version(model)),
        ("image", model.container_tag),
        *([("pinned to", model.pinned_image)] if model.pinned_image is not None else []),
        ("description", model.description),
        ("gpu", "yes" if model.use_gpu else "no"),
        ("pull policy", model.pull_policy),
        ("isolation", model.isolation),
        *([("runtime", model.runtime)] if model.runtime is not None else []),
        ("strict output", "yes" if model.strict_output else "no"),
        ("time limit", format_duration(model.time_limit_s)),
        ("memory", _show_size(model.memory_limit_bytes, "the consumer's limit")),
        ("shared memory", _show_size(model.shared_memory_bytes, "the consumer's default")),
        ("temporary files", _show_size(model.temporary_bytes, "the consumer's default")),
        ("pids limit", "the consumer's default" if model.pids_limit is None else str(model.pids_limit)),
        ("cpus", "the consumer's limit" if model.cpus is None else f"{model.cpus:g}"),
        ("/model", "empty" if archive is None else f"{format_size(archive.size_bytes)}, sha256 {archive.sha256}"),
        ("registered", show_moment(model.created_at)),
        *([("owner", model.owner)] if model.owner is not None else []),
        ("for", say_for_whom(model)),
        *((f"image at {image.consumer}", _describe_finding(image)) for image in model.images),
        *(("warning", warning) for warning in model.warnings),
    ]


def _show_size(size_bytes: int | None, otherwise: str) -> str:
    return otherwise if size_bytes is None else format_size(size_bytes)


def _describe_finding(image: ImageFinding) -> str:
    said = _FOUND.get(image.finding, image.finding) + (f": {image.detail}" if image.detail else "")
    return said if image.found_at is None else f"{said} ({show_moment(image.found_at)})"
