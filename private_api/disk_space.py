"""Keeps the last of the data folder's disk for the database: uploads and logs stop before it.

The ballast is the last resort, for a disk that something else fills: a file that is given up, so that a cancel, a
deletion or the end of an attempt can still be written.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from contract.errors import StorageFull
from kit.disk import DISK_RESERVE_BYTES, free_bytes, is_disk_full

logger = logging.getLogger(__name__)


class DiskSpace:
    """The disk of one folder, and how much of it is not for files."""

    def __init__(self, folder: Path, reserve_bytes: int = DISK_RESERVE_BYTES) -> None:
        self._folder = folder
        self._reserve_bytes = reserve_bytes

    def check(self, more_bytes: int) -> None:
        """Raises `StorageFull` unless the reserve is still free once `more_bytes` are written."""
        free = free_bytes(self._folder)
        if free < more_bytes + self._reserve_bytes:
            raise StorageFull(
                f"the server's disk has {free} bytes left, of which {self._reserve_bytes} are reserved: too few for "
                "this; nothing was kept"
            )


class Ballast:
    """A file that holds blocks of the disk until the database needs them. Thread-safe."""

    def __init__(self, path: Path, reserve_bytes: int = DISK_RESERVE_BYTES) -> None:
        """An eighth of the reserve that others leave free."""
        self._path = path
        self._size_bytes = reserve_bytes // 8
        self._lock = threading.Lock()

    def trim(self) -> None:
        """Give the file up where the disk is all but full; make it again once the reserve is free. Raises nothing."""
        with self._lock, contextlib.suppress(OSError):
            free, is_there = free_bytes(self._path.parent), self._path.exists()
            if is_there and free < self._size_bytes // 4:
                self._path.unlink()
                logger.error(
                    "the disk of %s is full: the ballast was given up, so that tasks can still be ended and deleted; "
                    "make room",
                    self._path.parent,
                )
            elif not is_there and free > 8 * self._size_bytes:
                self._make()

    def _make(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Blocks, not a hole.
            os.posix_fallocate(descriptor, 0, self._size_bytes)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def full_disk_translated() -> Iterator[None]:
    """Raises `StorageFull` where the block fails for want of space."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise StorageFull from error
        raise
