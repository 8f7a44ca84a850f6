"""`infer init`, `infer check` and `infer build`: from a folder to a model."""

from pathlib import Path
from typing import Annotated

import typer

from inference_client.cli.build_command import build
from inference_client.cli.checker import Check, run_check
from inference_client.cli.display import Display
from inference_client.cli.image_options import (
    Checker,
    Cpus,
    Gpu,
    Isolation,
    Memory,
    Model,
    PidsLimit,
    RunLimits,
    SharedMemory,
    Temporary,
    TimeLimit,
    run_options,
)
from inference_client.cli.output import JsonOption, print_json, print_path
from inference_client.docker_cli import build_image
from inference_client.scaffold import write_template


def add_folder_commands(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("init")(init)
    app.command("check")(check)
    app.command("build")(build)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")], as_json: JsonOption = False
) -> None:
    """Write a small model that works, to start from: program, Dockerfile, example input, test, README."""
    written = write_template(folder)
    if as_json:
        print_json({"folder": str(folder), "files": [str(path) for path in written]})
        return
    display = Display()
    display.say(f"wrote {len(written)} files; next:")
    display.say(f"    cd {folder}\n    infer check . --input example/input --model model")
    print_path(folder)


def check(
    target: Annotated[str, typer.Argument(metavar="IMAGE|DIR", help="An image, or a folder with a Dockerfile.")],
    *,
    input_path: Annotated[
        Path, typer.Option("--input", exists=True, help="What /input holds: a folder, a file or a zip.")
    ],
    model: Model = None,
    gpu: Gpu = False,
    memory: Memory = None,
    shared_memory: SharedMemory = None,
    temporary: Temporary = None,
    pids_limit: PidsLimit = None,
    cpus: Cpus = None,
    time_limit: TimeLimit = "24h",
    isolation: Isolation = "strict",
    output: Annotated[Path | None, typer.Option("--output", "-o", dir_okay=False, help="Keep the output zip.")] = None,
    no_compare: Annotated[
        bool, typer.Option("--no-compare", help="Do not run what failed under strict once more under compatible.")
    ] = False,
    checker: Checker = None,
    as_json: JsonOption = False,
) -> None:
    """Run an image on this machine exactly as the server would: does it finish, and what does the sandbox break?

    The log goes to stderr, the verdict to stdout. Exits with 1 if the task would fail.
    """
    limits = RunLimits(memory, shared_memory, temporary, pids_limit, cpus)
    options = run_options(limits, time_limit, isolation)
    options += ["--no-compare"] if no_compare else []
    options += ["--json"] if as_json else []
    image = build_image(Path(target)) if Path(target).is_dir() else target
    raise typer.Exit(run_check(Check(image, input_path, model, tuple(options), gpu=gpu, output=output), checker))
