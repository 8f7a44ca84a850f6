"""Runs the server's own `inference-server check`, which the client lacks: from beside it, or from the image."""

import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from inference_client.config import environment
from inference_client.docker_cli import has_image, remove_volume, run_through
from inference_client.errors import UnusableInput

LIMITS = (
    "MEMORY_LIMIT_BYTES",
    "CPU_LIMIT",
    "PIDS_LIMIT",
    "MAX_PIDS",
    "SHARED_MEMORY_BYTES",
    "TEMPORARY_BYTES",
    "CONTAINER_LOG_BYTES",
    "SCRATCH_BYTES",
    "DISK_RESERVE_BYTES",
)
"""The consumer's variables, which a check obeys wherever it runs."""
_SOCKET = "/var/run/docker.sock"
_NO_CONTAINER = 125
"""What `docker run` ends with if there was no container."""


@dataclass(frozen=True)
class Check:
    """What is checked, and how."""

    image: str
    input: Path
    model: Path | None
    options: tuple[str, ...]
    """Passed on as they are."""
    gpu: bool = False
    output: Path | None = None
    on_stderr: bool = False
    """Whether the verdict goes there, too, because stdout is for something else."""


def run_check(check: Check, checker_image: str | None) -> int:
    """Run the check in this process's terminal; returns its exit code. `checker_image` forces that image's code.

    Raises `UnusableInput` if the server's code is neither installed here nor in an image.
    """
    if check.output is not None and not check.output.absolute().parent.is_dir():
        raise UnusableInput(f"{check.output} cannot be written: there is no folder {check.output.parent}")
    script = Path(sys.executable).with_name("inference-server")
    if checker_image is None and script.exists() and _is_installed("docker"):
        return run_through([str(script), *_arguments(check)], on_stderr=check.on_stderr)
    image = checker_image or f"inference-server:{_own_version()}"
    if not has_image(image):
        raise UnusableInput(
            f"`infer check` runs the server's own code, and neither that nor the server's image {image} is on this "
            "machine\nLoad or pull the server's image and name it with --checker, or install the server beside infer: "
            "pip install 'inference-server[server]'"
        )
    with _volume() as volume:
        code = run_through(_container(check, image, volume, environment()), on_stderr=check.on_stderr)
    if code == _NO_CONTAINER:
        raise UnusableInput(f"{image} could not be started; docker's words are above")
    return code


def _arguments(check: Check) -> list[str]:
    named = [("--input", check.input), ("--model", check.model), ("--output", check.output)]
    paths = [part for name, path in named if path is not None for part in (name, str(path))]
    return ["check", check.image, *paths, *(["--gpu"] if check.gpu else []), *check.options]


def _container(check: Check, image: str, volume: str, variables: Mapping[str, str]) -> list[str]:
    """The `docker run` whose program sees the same files and the same Engine as a check beside `infer` would."""
    given = [name for name in LIMITS if variables.get(name)]
    inside = Check(
        image=check.image,
        input=_inside("input", check.input),
        model=check.model and _inside("model", check.model),
        output=check.output and _inside("output", check.output),
        options=(*check.options, "--work-volume", volume),
        gpu=check.gpu,
    )
    mounts = [_bind(_socket(variables), _SOCKET), f"type=volume,source={volume},target=/work"]
    mounts += [_bind(check.input.resolve(), inside.input, read_only=True)]
    mounts += [_bind(check.model.resolve(), inside.model, read_only=True)] if check.model and inside.model else []
    mounts += [_bind(check.output.resolve().parent, inside.output.parent)] if check.output and inside.output else []
    return [
        *("docker", "run", "--rm", "--init", "--user", "0:0", "--network", "none", "--no-healthcheck"),
        *(part for mount in mounts for part in ("--mount", mount)),
        *(part for name in given for part in ("--env", name)),
        # For nvidia-smi, which says which GPUs there are.
        *(["--gpus", "all"] if check.gpu else []),
        *(image, "inference-server", *_arguments(inside)),
    ]


def _inside(place: str, path: Path) -> Path:
    # With its own name, which a single file keeps in the zip.
    return Path("/check") / place / path.resolve().name


def _bind(source: object, target: object, *, read_only: bool = False) -> str:
    if "," in str(source):
        raise UnusableInput(f"{source} has a comma in its name, which docker cannot mount; rename it")
    return f"type=bind,source={source},target={target}" + (",readonly" if read_only else "")


def _socket(variables: Mapping[str, str]) -> str:
    address = variables.get("DOCKER_HOST") or f"unix://{_SOCKET}"
    if not address.startswith("unix://"):
        raise UnusableInput(f"DOCKER_HOST is {address}: an image can be checked only on the machine of its Engine")
    return address.removeprefix("unix://")


@contextmanager
def _volume() -> Iterator[str]:
    name = f"inference-server-check-{secrets.token_hex(4)}"
    try:
        yield name
    finally:
        remove_volume(name)


def _own_version() -> str:
    # By the package, whichever distribution brought it; one that is installed for editing is not found so.
    names = packages_distributions().get("inference_client", ["inference-server"])
    return version(names[0])


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
