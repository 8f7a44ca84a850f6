"""The host's GPUs as `nvidia-smi` lists them."""

import re
import subprocess
from dataclasses import dataclass, replace

_TIMEOUT_S = 60
"""The first call after a boot initialises the driver."""
_GPU = re.compile(r"^GPU (?P<index>\d+): (?P<name>.+) \(UUID: (?P<uuid>[^)]+)\)$")
_SLICE = re.compile(r"^\s+MIG (?P<profile>\S+)\s+Device\s+\d+: \(UUID: (?P<uuid>[^)]+)\)$")
_SLICE_MEMORY = re.compile(r"\.(\d+)gb")


class NoGpuError(Exception):
    """This host has no usable GPU. The text says what was found."""


@dataclass(frozen=True)
class Gpu:
    """What one consumer gets: a GPU, or a MIG slice of one."""

    index: int
    """The GPU's number on this host; slices share it."""
    uuid: str
    name: str
    memory_mib: int | None


def find_gpus() -> list[Gpu]:
    """The GPUs of this host. A GPU that is cut into MIG slices is replaced by them. Raises `NoGpuError`."""
    gpus = parse_list(_ask("-L"))
    if not gpus:
        raise NoGpuError("nvidia-smi finds no GPU on this host")
    memory = parse_memory(_ask("--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"))
    return [replace(gpu, memory_mib=memory[gpu.uuid]) if gpu.uuid in memory else gpu for gpu in gpus]


def parse_list(text: str) -> list[Gpu]:
    """Parse what `nvidia-smi -L` prints."""
    gpus: list[Gpu] = []
    whole: Gpu | None = None
    for line in text.splitlines():
        if match := _GPU.match(line):
            whole = Gpu(int(match["index"]), match["uuid"], match["name"], None)
            gpus.append(whole)
        elif whole is not None and (match := _SLICE.match(line)):
            if gpus[-1] is whole:
                gpus.pop()
            gigabytes = _SLICE_MEMORY.search(match["profile"])
            memory_mib = int(gigabytes[1]) * 1024 if gigabytes else None
            gpus.append(Gpu(whole.index, match["uuid"], f"{whole.name} MIG {match['profile']}", memory_mib))
    return gpus


def parse_memory(text: str) -> dict[str, int]:
    """MiB by UUID, from rows of `index, uuid, name, memory.total`. Values unknown to the driver are left out."""
    memory = {}
    for line in text.splitlines():
        columns = [column.strip() for column in line.split(",")]
        if len(columns) >= 4 and columns[-1].isdecimal():
            memory[columns[1]] = int(columns[-1])
    return memory


def _ask(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except FileNotFoundError as error:
        raise NoGpuError("this host has no nvidia-smi, so no NVIDIA driver") from error
    except OSError as error:
        raise NoGpuError(f"nvidia-smi cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise NoGpuError(f"nvidia-smi did not answer within {_TIMEOUT_S} s") from error
    # It reports faults on either stream, and exits with 0 if there is merely no device.
    said = " ".join((done.stdout + " " + done.stderr).split())
    if done.returncode != 0:
        raise NoGpuError(f"nvidia-smi fails with exit code {done.returncode}: {said.rstrip('.') or 'it says nothing'}")
    return done.stdout
