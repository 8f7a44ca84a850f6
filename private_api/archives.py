"""Zips at rest: how the archive folder is written and read.

An archive is written to a temporary name with a running sha256, synced, and renamed; it is visible to users only
through a committed row, so a crash at any point leaves at most a file that the janitor removes.

    <root>/tmp/<random>             being written
    <root>/inputs|outputs|models/   kept
"""

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kit.disk import DISK_RESERVE_BYTES
from private_api.disk_space import DiskSpace, full_disk_translated

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""How file systems say that they have no hard links, or no more for this file."""
_CHUNK_BYTES = 1024**2
_WRITE_OUT_BYTES = 8 * 1024**2
"""How much of an upload is written before the kernel is told to begin with it: `sync` then waits for little."""


@dataclass(frozen=True)
class StoredArchive:
    """A stored zip. `key` is its path below the root."""

    key: str
    sha256: str
    size_bytes: int


class Upload:
    """A zip being written under a temporary name, by one thread at a time, until it is kept or discarded."""

    def __init__(self, path: Path, space: DiskSpace) -> None:
        self.path = path
        self._space = space
        self.size_bytes = 0
        self._written_out = 0
        self._digest = hashlib.sha256()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    @property
    def sha256(self) -> str:
        """The hash of what was written so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Append data. Raises `StorageFull` before the disk's reserve is touched: no length may have been announced."""
        self._space.check(len(data))
        view = memoryview(data)
        with full_disk_translated():
            # On a nearly full disk write() stores a part and raises nothing; only the next call fails.
            while view:
                view = view[os.write(self._fd, view) :]
        self._digest.update(data)
        self.size_bytes += len(data)
        if self.size_bytes - self._written_out >= _WRITE_OUT_BYTES:
            # Begins to write, and waits for nothing. What is dirty stays in memory, where it is read again soon.
            os.posix_fadvise(self._fd, self._written_out, self.size_bytes - self._written_out, os.POSIX_FADV_DONTNEED)
            self._written_out = self.size_bytes

    def sync(self) -> None:
        """Force the content to disk and close the file."""
        with full_disk_translated():
            os.fsync(self._fd)
        self.close()

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Remove what was written, unless it was kept."""
        self.close()
        self.path.unlink(missing_ok=True)


class ArchiveStore:
    """The archive folder. Thread-safe: every file has one writer and a name of its own."""

    def __init__(self, root: Path, *, reserve_bytes: int = DISK_RESERVE_BYTES) -> None:
        """Uploads leave `reserve_bytes` of the disk free."""
        self._root = root
        self._space = DiskSpace(root, reserve_bytes)
        self._tmp = root / "tmp"
        for folder in (self._tmp, root / "inputs", root / "outputs", root / "models"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def open_upload(self, expected_bytes: int | None) -> Upload:
        """Begin an upload, of `expected_bytes` if the sender announced it. Raises `StorageFull`."""
        self._space.check(expected_bytes or 0)
        with full_disk_translated():
            return Upload(self._tmp / secrets.token_hex(16), self._space)

    def keep(self, upload: Upload, key: str) -> StoredArchive:
        """Give a finished upload its lasting name. Raises `StorageFull`."""
        target = self._root / key
        upload.sync()
        with full_disk_translated():
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            upload.path.rename(target)
            _sync_folder(target.parent)
        return StoredArchive(key, upload.sha256, upload.size_bytes)

    def share(self, source: StoredArchive, key: str) -> StoredArchive:
        """Give the bytes of a kept archive a second name, with a life of its own.

        Both names are links to one file; where the file system has no links, the bytes are copied. Raises
        `FileNotFoundError` if the archive is gone, `StorageFull`.
        """
        path, target = self._root / source.key, self._root / key
        # First: a file that is old and has no row yet would be an orphan.
        os.utime(path)
        try:
            with full_disk_translated():
                os.link(path, target)
                _sync_folder(target.parent)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._copy(path, key)
        return StoredArchive(key, source.sha256, source.size_bytes)

    def _copy(self, path: Path, key: str) -> StoredArchive:
        with path.open("rb") as file, _discarded(self.open_upload(path.stat().st_size)) as upload:
            while chunk := file.read(_CHUNK_BYTES):
                upload.write(chunk)
            return self.keep(upload, key)

    def path(self, key: str) -> Path:
        """The file of an archive."""
        return self._root / key

    def remove(self, key: str) -> None:
        """Remove an archive. A reader that has it open is not disturbed."""
        path = self._root / key
        path.unlink(missing_ok=True)
        if path.parent.parent != self._root:
            with contextlib.suppress(OSError):
                path.parent.rmdir()

    def stale_uploads(self, age_s: float) -> Iterator[Path]:
        """Temporary files that were last written more than `age_s` ago."""
        yield from _older_than(self._tmp, age_s)

    def kept_keys(self, age_s: float) -> Iterator[str]:
        """The keys of files that were last written more than `age_s` ago."""
        for folder in ("inputs", "outputs", "models"):
            for path in _older_than(self._root / folder, age_s):
                yield str(path.relative_to(self._root))


@contextlib.contextmanager
def _discarded(upload: Upload) -> Iterator[Upload]:
    try:
        yield upload
    finally:
        upload.discard()


def _older_than(folder: Path, age_s: float) -> Iterator[Path]:
    """One by one: there may be millions, and whoever reads them may remove them and takes its time."""
    limit = time.time() - age_s
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    yield from _older_than(Path(entry.path), age_s)
                elif entry.stat(follow_symlinks=False).st_mtime < limit:
                    yield Path(entry.path)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
