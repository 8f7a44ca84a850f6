"""One consumer per GPU: the Compose file that starts them, and the list for an operator."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from operations.gpus import Gpu

BASE_FILE = "docker-compose.yaml"
BASE_SERVICE = "job-consumer"
PROFILE = "gpu"


def show(gpus: Sequence[Gpu], *, as_json: bool) -> None:
    """Print the GPUs and the name of each one's consumer."""
    from rich.console import Console
    from rich.table import Table

    names = consumer_names(gpus)
    if as_json:
        rows = [{**asdict(gpu), "consumer": name} for gpu, name in zip(gpus, names, strict=True)]
        print(json.dumps(rows, indent=2))  # noqa: T201
        return
    table = Table("GPU", "UUID", "name", "memory", "consumer")
    for gpu, name in zip(gpus, names, strict=True):
        memory = "unknown" if gpu.memory_mib is None else f"{gpu.memory_mib / 1024:.0f} GiB"
        table.add_row(str(gpu.index), gpu.uuid, gpu.name, memory, name)
    # Without a terminal lines are not folded: a folded UUID could not be copied.
    console = Console()
    Console(width=None if console.is_terminal else 200).print(table)


def consumer_names(gpus: Sequence[Gpu]) -> list[str]:
    """A name for each GPU's consumer, which stays the same when other GPUs come and go."""
    plain = [re.sub(r"^(MIG-)?(GPU-)?", "", gpu.uuid) for gpu in gpus]
    short = [uuid.partition("-")[0] for uuid in plain]
    # Names of slices of one GPU may begin alike.
    return [
        "gpu-" + re.sub(r"[^A-Za-z0-9]+", "-", uuid if short.count(start) > 1 else start)
        for uuid, start in zip(plain, short, strict=True)
    ]


def compose_override(file: str, gpus: Sequence[Gpu]) -> str:
    """The text of the Compose file `file`: a consumer for each GPU that extends the one in `BASE_FILE`."""
    services = "".join(
        f"  {BASE_SERVICE}-gpu-{number}:\n"
        f"    # GPU {gpu.index}: {gpu.name}\n"
        f"    extends: {{file: {BASE_FILE}, service: {BASE_SERVICE}}}\n"
        # Without the tag these would be added to the profiles of the base.
        f"    profiles: !override [{PROFILE}]\n"
        f"    environment:\n"
        f"      GPU_UUID: {gpu.uuid}\n"
        f"      CONSUMER_NAME: {name}\n"
        for number, (gpu, name) in enumerate(zip(gpus, consumer_names(gpus), strict=True))
    )
    return (
        f"# One consumer per GPU of this host. Made by `inference-server gpus --write {file}`;\n"
        "# run that again when GPUs or their slices change. For Compose 2.24.4 or newer. In .env:\n"
        + "".join(f"#   {line}\n" for line in _variables(file))
        + f"services:\n{services}"
    )


def activation(path: Path) -> str:
    """The variables that .env needs to use the file."""
    return " and ".join(_variables(path.name))


def write_override(path: Path, gpus: Sequence[Gpu]) -> None:
    """Write the file, replacing an earlier one. Raises `OSError`."""
    path.write_text(compose_override(path.name, gpus))


def _variables(file: str) -> list[str]:
    return [f"COMPOSE_FILE={BASE_FILE}:{file}", f"COMPOSE_PROFILES={PROFILE}"]
