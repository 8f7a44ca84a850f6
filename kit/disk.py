"""How full a disk is, and how the system says that it is full."""

import errno
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
