"""The options of commands that say what a run may take."""

from typing import Annotated

import typer

SharedMemory = Annotated[str | None, typer.Option(help="Size of /dev/shm, a part of the memory: bytes, or as in 4GiB.")]
Temporary = Annotated[str | None, typer.Option(help="Size of /tmp, a part of the memory: bytes, or as in 4GiB.")]
PidsLimit = Annotated[int | None, typer.Option(min=16, help="Processes and threads of a run.")]
Cpus = Annotated[float | None, typer.Option(min=0.01, help="Cores that a run may use, such as 1.5.")]
