"""The options of commands that say what a run may take."""

from collections.abc import Callable
from typing import Annotated

import typer

SharedMemory = Annotated[str | None, typer.Option(help="Size of /dev/shm, a part of the memory: bytes, or as in 4GiB.")]
Temporary = Annotated[str | None, typer.Option(help="Size of /tmp, a part of the memory: bytes, or as in 4GiB.")]
PidsLimit = Annotated[int | None, typer.Option(min=16, help="Processes and threads of a run.")]
Cpus = Annotated[float | None, typer.Option(min=0.01, help="Cores that a run may use, such as 1.5.")]


def listed(text: str, parse: Callable[[str], tuple[str, ...]], option: str) -> tuple[str, ...]:
    """What an option lists with commas between. Raises `typer.BadParameter`."""
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
