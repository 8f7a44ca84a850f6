"""The options that commands about images share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

IsolationWord = Literal["strict", "compatible"]
Model = Annotated[Path | None, typer.Option(exists=True, help="A folder or zip with static content for /model.")]
Gpu = Annotated[bool, typer.Option("--gpu", help="A task needs a GPU.")]
Memory = Annotated[str | None, typer.Option(help="Memory of one run: bytes, or as in 4GiB.")]
TimeLimit = Annotated[str, typer.Option(help="How long one run may take: seconds, or as in 2h or 1h30m.")]
Isolation = Annotated[IsolationWord, typer.Option(help="How the model is to be registered.")]
StrictOutput = Annotated[
    bool,
    typer.Option(
        "--strict-output", help="Fail a task whose output holds something that cannot travel, in place of a warning."
    ),
]
Checker = Annotated[
    str | None,
    typer.Option(envvar="INFERENCE_SERVER_IMAGE", help="The server's image, whose code checks."),
]


def run_options(memory: str | None, time_limit: str, isolation: str) -> list[str]:
    """The options of a check that are also those of a registration."""
    given = ["--time-limit", time_limit, "--isolation", isolation]
    return given + (["--memory", memory] if memory else [])
