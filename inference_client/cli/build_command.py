"""`infer build`: the image of a folder becomes a model of the server, where that is possible from here."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inference_client.cli.checker import Check, run_check
from inference_client.cli.display import Display
from inference_client.cli.exit_codes import ExitCode
from inference_client.cli.image_options import (
    Checker,
    Cpus,
    Gpu,
    Isolation,
    IsolationWord,
    Memory,
    Model,
    PidsLimit,
    RunLimits,
    SharedMemory,
    StrictOutput,
    Temporary,
    TimeLimit,
    run_options,
)
from inference_client.cli.models import register
from inference_client.cli.output import JsonOption, print_json, print_line
from inference_client.cli.server_options import server_options
from inference_client.docker_cli import build_image, engine_name, push_image, tag_image
from inference_client.errors import RouteNotFound, Unauthenticated, UnusableInput
from inference_client.models import ModelView
from inference_client.scaffold import model_name
from inference_client.sharing import Sharing, judge
from inference_client.statuses import Kind

if TYPE_CHECKING:
    from inference_client.client import InferenceClient


@dataclass(frozen=True)
class _Recipe:
    """What is made of a folder."""

    folder: Path
    model_id: str
    model: Path | None
    description: str
    gpu: bool
    limits: RunLimits
    time_limit: str
    isolation: IsolationWord
    strict_output: bool


def build(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="Holds a Dockerfile.")],
    *,
    name: Annotated[str | None, typer.Option(help="The model's id; by default the folder's name.")] = None,
    tag: Annotated[str | None, typer.Option(help="The image's name; by default ID:<the image's own id>.")] = None,
    model: Model = None,
    description: Annotated[str, typer.Option(help="What the model does, for people.")] = "",
    gpu: Gpu = False,
    memory: Memory = None,
    shared_memory: SharedMemory = None,
    temporary: Temporary = None,
    pids_limit: PidsLimit = None,
    cpus: Cpus = None,
    time_limit: TimeLimit = "24h",
    isolation: Isolation = "strict",
    strict_output: StrictOutput = False,
    check_first: Annotated[bool, typer.Option("--check", help="Check it first; needs --input.")] = False,
    input_path: Annotated[Path | None, typer.Option("--input", exists=True, help="The input to check it on.")] = None,
    push: Annotated[bool, typer.Option("--push", help="Push the image to the registry that --tag names.")] = False,
    checker: Checker = None,
    as_json: JsonOption = False,
) -> None:
    """Build the image of DIR and register it as a model, or as a new version of it; print the model's id.

    If tasks run on other machines than this, it is not registered: infer says how to bring the image there.
    """
    if check_first and input_path is None:
        raise typer.BadParameter("--check needs --input")
    if push and (tag is None or "/" not in tag):
        raise typer.BadParameter("--push needs --tag with a registry, as in --tag registry.example.org/lab/seg:1")
    limits = RunLimits(memory, shared_memory, temporary, pids_limit, cpus)
    recipe = _Recipe(
        folder, name or model_name(folder), model, description, gpu, limits, time_limit, isolation, strict_output
    )
    display = Display(quiet=as_json)
    with server_options(context).connect(display) as client:
        # Asked first: a server that is not there should be said before a long build.
        sharing = _find_out(client, Kind.GPU if gpu else Kind.CPU)
        tagged = _make_image(recipe, tag, display)
        if check_first and input_path is not None:
            _check(recipe, tagged, input_path, checker, display)
        if push:
            push_image(tagged)
        elif not sharing.is_shared:
            raise UnusableInput(_how_to_bring(sharing, recipe, tagged))
        else:
            display.say(sharing.detail)
        view = _register(client, display, recipe, tagged, pushed=push)
    print_json(view) if as_json else print_line(view.human_readable_id)


def _find_out(client: "InferenceClient", kind: Kind) -> Sharing:
    try:
        consumers = list(client.list_consumers())
    except (Unauthenticated, RouteNotFound):
        # Raises `Unauthenticated` where nothing is to be had without a key.
        next(client.list_models(), None)
        consumers = None
    return judge(consumers, server=client.server, engine=engine_name(), kind=kind)


def _make_image(recipe: _Recipe, tag: str | None, display: Display) -> str:
    """Build and name the image; by default after itself, so that each version of the model keeps its own."""
    image = build_image(recipe.folder)
    tagged = tag or f"{recipe.model_id}:{image.removeprefix('sha256:')[:12]}"
    tag_image(image, tagged)
    display.say(f"built {tagged}")
    return tagged


def _check(recipe: _Recipe, tag: str, input_path: Path, checker: str | None, display: Display) -> None:
    options = tuple(run_options(recipe.limits, recipe.time_limit, recipe.isolation))
    code = run_check(Check(tag, input_path, recipe.model, options, gpu=recipe.gpu, on_stderr=True), checker)
    if code != ExitCode.OK:
        display.warn(f"{tag} was not registered, because the check failed")
        raise typer.Exit(code)


def _register(client: "InferenceClient", display: Display, recipe: _Recipe, tag: str, *, pushed: bool) -> ModelView:
    return register(
        client,
        display,
        recipe.model,
        human_readable_id=recipe.model_id,
        container_tag=tag,
        description=recipe.description,
        use_gpu=recipe.gpu,
        # A registry could have another image of this name.
        pull_policy="missing" if pushed else "never",
        isolation=recipe.isolation,
        strict_output=recipe.strict_output,
        time_limit=recipe.time_limit,
        limits=recipe.limits,
        replace=True,
    )


def _how_to_bring(sharing: Sharing, recipe: _Recipe, tag: str) -> str:
    hosts = sharing.lacking or ("HOST",)
    options = ["--gpu"] if recipe.gpu else []
    options += ["--isolation", recipe.isolation] if recipe.isolation != "strict" else []
    options += ["--strict-output"] if recipe.strict_output else []
    options += recipe.limits.options()
    options += ["--time-limit", recipe.time_limit] if recipe.time_limit != "24h" else []
    archive, again = [], []
    if recipe.model is not None:
        archive = ["--archive-folder" if recipe.model.is_dir() else "--archive", str(recipe.model)]
        again = ["--model", str(recipe.model)]
    add = ["infer models add", tag, recipe.model_id, "--pull-policy never --replace", *options, *archive]
    build_again = ["infer build", str(recipe.folder), "--name", recipe.model_id, *options, *again]
    return "\n".join(
        [
            f"{tag} was built, but not registered: {sharing.detail}",
            "To bring the image to every machine that tasks run on, and register it:",
            *(f"    docker save {tag} | ssh {host} docker load" for host in hosts),
            f"    {' '.join(add)}",
            "Or through a registry that those machines reach:",
            f"    {' '.join(build_again)} --push --tag REGISTRY/{tag}",
        ]
    )
