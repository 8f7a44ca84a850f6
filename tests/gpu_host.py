"""What the kernel driver of a host with GPUs shows below `/proc/driver/nvidia`, as files; and the GPU to test with."""

import re
from collections.abc import Collection
from pathlib import Path

from job_consumer.gpu_check import DRIVER

INFORMATION = """\
Model: \t\t NVIDIA A10G
IRQ:   \t\t 42
{uuid}Video BIOS: \t 94.04.42.00.01
Bus Type: \t PCIe
DMA Size: \t 47 bits
DMA Mask: \t 0x7fffffffffff
Bus Location: \t 0000:0{number}:00.0
Device Minor: \t {number}
GPU Firmware: \t 535.129.03
GPU Excluded:\t {excluded}
"""


def gpu_host(folder: Path, *uuids: str | None, excluded: Collection[str] = (), slices: int = 0) -> Path:
    """The driver's folder on a host with these GPUs; None is one of which it tells no UUID. The first has slices."""
    driver = folder / "nvidia"
    for number, uuid in enumerate(uuids):
        gpu = driver / f"gpus/0000:0{number}:00.0"
        gpu.mkdir(parents=True)
        line = f"GPU UUID: \t {uuid}\n" if uuid else ""
        said = "Yes" if uuid in excluded else "No"
        (gpu / "information").write_text(INFORMATION.format(uuid=line, number=number, excluded=said))
        (driver / f"capabilities/gpu{number}/mig").mkdir(parents=True)
    for number in range(slices):
        (driver / f"capabilities/gpu0/mig/gi{number}/ci0").mkdir(parents=True)
    return driver


def gpu_or(made_up: str) -> str:
    """The UUID of a GPU of this machine; where it has none, the one made up: consumers cannot tell then."""
    for path in sorted(DRIVER.glob("gpus/*/information")):
        if match := re.search(r"^GPU UUID:\s*(GPU-[0-9a-f-]+)\s*$", path.read_text(), re.MULTILINE):
            return match[1]
    return made_up
