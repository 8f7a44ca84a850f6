"""Whether a consumer's GPU is on this host, by what the kernel driver shows in `/proc/driver/nvidia`.

The driver shows every container all GPUs of the host, so this needs no `nvidia-smi`, no mount and no GPU of its own.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

DRIVER = Path("/proc/driver/nvidia")
_FIELD = re.compile(r"^([^:]+?)\s*:\s*(.*?)\s*$", re.MULTILINE)
# A slice was once named after its GPU: `MIG-GPU-<uuid>/<instance>/<compute instance>`.
_SLICE_OF = re.compile(r"MIG-(GPU-[0-9a-f-]+)(/\d+){2}", re.IGNORECASE)


class GpuMissing(Exception):
    """This host has GPUs, but not the one that was asked for. The text says which, and what to do."""


@dataclass(frozen=True)
class _HostGpu:
    uuid: str | None
    """None if the driver does not show it: nothing has woken the GPU since boot."""
    name: str


def check_gpu(uuid: str, driver: Path = DRIVER) -> None:
    """Raises `GpuMissing`. If the driver cannot say, that is one WARNING: the Engine decides at each task."""
    doubt = _judge(uuid, driver)
    if doubt:
        logger.warning("GPU %s could not be verified: %s", uuid, doubt)


def _judge(uuid: str, driver: Path) -> str | None:
    """Why it cannot be known, or None if the GPU is there. Raises `GpuMissing`."""
    gpus = list(_host_gpus(driver))
    if not gpus:
        return f"{driver} shows no GPU here"
    match = _SLICE_OF.fullmatch(uuid)
    wanted = match[1] if match else uuid
    if wanted.lower() in {gpu.uuid.lower() for gpu in gpus if gpu.uuid}:
        return None
    if driver.is_mount():
        # The container toolkit hides the other GPUs from a container that was given some.
        return "this container was given GPUs of its own and sees no other"
    if wanted.upper().startswith("MIG-") and any(driver.glob("capabilities/gpu*/mig/gi*")):
        return "the driver does not tell the UUIDs of MIG slices"
    silent = sum(gpu.uuid is None for gpu in gpus)
    if silent and not wanted.upper().startswith("MIG-"):
        return f"the driver does not tell the UUIDs of {silent} GPUs that nothing has woken since the boot"
    shown = ", ".join(f"{gpu.uuid or 'one without a UUID'} ({gpu.name})" for gpu in gpus)
    cut = " and no MIG slices" if wanted.upper().startswith("MIG-") else ""
    raise GpuMissing(
        f"GPU {uuid} is not on this host, whose driver shows {shown}{cut}; on the host, `inference-server gpus` lists "
        "what can be used, and `inference-server gpus --write compose.gpu.yaml` writes a consumer for each"
    )


def _host_gpus(driver: Path) -> Iterator[_HostGpu]:
    for path in sorted(driver.glob("gpus/*/information")):
        try:
            fields = dict(_FIELD.findall(path.read_text(errors="replace")))
        except OSError:
            # It vanished after it was listed, or this user may not read it.
            fields = {}
        if fields.get("GPU Excluded") == "Yes":
            continue
        uuid = fields.get("GPU UUID")
        yield _HostGpu(None if not uuid or "?" in uuid else uuid, fields.get("Model") or path.parent.name)
