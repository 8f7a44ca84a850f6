"""A small disk of its own for a test, and how to fill it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kit.disk import free_bytes

MIB = 1024**2


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of this size at `folder`; skips where this process may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazily: a connection of a database may still be open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_disk(folder: Path, *, leave: int = 0) -> Path:
    """Write a file that leaves this many bytes of the disk free; returns it."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        while (left := free_bytes(folder) - leave) > 0:
            try:
                file.write(bytes(min(left, MIB)))
            except OSError:
                break
        os.fsync(file.fileno())
    return path
