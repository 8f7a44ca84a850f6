"""Decides which program of a model's zip runs, and what it sees."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from contract.schemas import PROCESS_TAG_PREFIX
from job_consumer.engines import ContainerSpec, ImageNotFound
from job_consumer.engines.process.run import RUN_VARIABLE, ProgramSpec, RunFolder
from job_consumer.engines.process.view import Folder
from job_consumer.engines.process.walls import Walls

MODEL = "/model"
TEMPORARY = "/tmp"  # noqa: S108 - the run's own
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def program_spec(
    spec: ContainerSpec, run: RunFolder, walls: Walls, readable: Sequence[Path], hidden: Sequence[Path]
) -> ProgramSpec:
    """What the supervisor of a run is told. Raises `ImageNotFound` if the model has no such program.

    `readable` and `hidden` are folders of the machine.
    """
    # First what others may lie below: a Python in the machine's own /tmp.
    folders = [Folder(str(run.temporary), TEMPORARY, read_only=False)]
    folders += [Folder(str(mount.folder), mount.target, mount.read_only) for mount in spec.mounts]
    model = next((folder for folder in folders if folder.target == MODEL), None)
    path = spec.image.removeprefix(PROCESS_TAG_PREFIX)
    if model is None:
        raise ImageNotFound(f"{spec.image} names a program in the model's zip, but the model has none")
    return ProgramSpec(
        uid=spec.key.uid,
        fence=spec.key.fence,
        consumer=spec.consumer,
        interpreter=_interpreter(Path(model.source), path),
        program=path,
        model=model,
        folders=folders,
        environment=_environment(spec, run),
        memory_limit_bytes=spec.memory_limit_bytes,
        pids_limit=spec.pids_limit,
        log_limit_bytes=spec.log_limit_bytes,
        server=spec.key.server,
        walls=walls,
        readable=[str(path) for path in readable],
        hidden=[str(path) for path in hidden],
        has_gpu=spec.gpu_uuid is not None,
        shared_memory_bytes=spec.shared_memory_bytes,
    )


def _interpreter(model: Path, path: str) -> list[str]:
    """The command that runs the program; empty for a file that is executable."""
    program = model / path
    if PurePosixPath(path).is_absolute() or not program.resolve().is_relative_to(model.resolve()):
        raise ImageNotFound(f"{path} leads out of the model's zip: give a path in it, without ..")
    if not program.is_file():
        raise ImageNotFound(f"the model's zip has no file {path}")
    if program.suffix == ".py":
        return [sys.executable]
    if os.access(program, os.X_OK):
        return []
    # Many tools write zips without the executable bit.
    with program.open("rb") as file:
        first = file.readline(256)
    if not first.startswith(b"#!"):
        raise ImageNotFound(f"{path} in the model's zip is neither executable, nor *.py, nor begins with #!")
    return first[2:].decode(errors="replace").strip().split(maxsplit=1)


def _environment(spec: ContainerSpec, run: RunFolder) -> dict[str, str]:
    """The program's environment: none of the consumer's own, which holds its secrets."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
        "LANG": "C.UTF-8",
        **spec.environment,
        "HOME": TEMPORARY,
        "TMPDIR": TEMPORARY,
        "NVIDIA_VISIBLE_DEVICES": spec.gpu_uuid or "void",
        "CUDA_VISIBLE_DEVICES": spec.gpu_uuid or "",
        RUN_VARIABLE: run.path.name,
    }
