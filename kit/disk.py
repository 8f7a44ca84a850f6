"""How full a disk is, how the system says that it is full, and what makes sure that it has what was written."""

import ctypes
import errno
import os
import shutil
from pathlib import Path

DISK_RESERVE_BYTES = 512 * 1024**2
"""What uploads, logs and runs leave free on a disk unless an operator says otherwise."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def free_bytes(path: Path) -> int:
    """The bytes that can still be written to the file system of `path`. Raises `OSError`."""
    return shutil.disk_usage(path).free


def is_disk_full(error: OSError) -> bool:
    """Whether a call failed for want of space, on the disk or in a quota."""
    return error.errno in _FULL


def sync_disk(folder: Path) -> None:
    """Wait until everything written to the file system of `folder` is on its disk, and to no other. Raises `OSError`.

    For many files at once: one call takes less than an `fsync` of each of them.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Python has no name for it. Unlike `os.sync`, it tells of what could not be written.
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(descriptor)
