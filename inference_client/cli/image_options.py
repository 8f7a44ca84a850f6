"""The options that commands about images share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from inference_client.units import parse_size

IsolationWord = Literal["strict", "compatible"]
Model = Annotated[Path | None, typer.Option(exists=True, help="A folder or zip with static content for /model.")]
Gpu = Annotated[bool, typer.Option("--gpu", help="A task needs a GPU.")]
Memory = Annotated[str | None, typer.Option(help="Memory of one run: bytes, or as in 4GiB.")]
SharedMemory = Annotated[str | None, typer.Option(help="Size of /dev/shm, a part of the memory: bytes, or as in 4GiB.")]
Temporary = Annotated[str | None, typer.Option(help="Size of /tmp, a part of the memory: bytes, or as in 4GiB.")]
PidsLimit = Annotated[int | None, typer.Option(min=16, help="Processes and threads of one run.")]
Cpus = Annotated[float | None, typer.Option(min=0.01, help="Cores that one run may use, such as 1.5.")]
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


@dataclass(frozen=True)
class RunLimits:
    """What one run may take, as it was typed; None leaves it to the consumer."""

    memory: str | None
    shared_memory: str | None
    temporary: str | None
    pids_limit: int | None
    cpus: float | None

    def options(self) -> list[str]:
        """The options that say the same to another command."""
        given = (
            ("--memory", self.memory),
            ("--shared-memory", self.shared_memory),
            ("--temporary", self.temporary),
            ("--pids-limit", self.pids_limit),
            ("--cpus", self.cpus),
        )
        return [part for name, value in given if value is not None for part in (name, str(value))]

    def fields(self) -> dict[str, Any]:
        """The members of a registration that say the same. Raises `UnusableInput`."""
        return {
            "memory_limit_bytes": _size(self.memory),
            "shared_memory_bytes": _size(self.shared_memory),
            "temporary_bytes": _size(self.temporary),
            "pids_limit": self.pids_limit,
            "cpus": self.cpus,
        }


def _size(text: str | None) -> int | None:
    return None if text is None else parse_size(text)


def run_options(limits: RunLimits, time_limit: str, isolation: str) -> list[str]:
    """The options of a check that are also those of a registration."""
    return ["--time-limit", time_limit, "--isolation", isolation, *limits.options()]
