"""Where zips lie: the only place that writes the archive folder.

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
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contract.errors import StorageFull

RESERVE_BYTES = 256 * 1024**2
"""An upload that would leave less than this free is refused before it starts."""


@dataclass(frozen=True)
class StoredArchive:
    """A kept zip: `key` is its path below the root."""

    key: str
    sha256: str
    size_bytes: int


class Upload:
    """A zip being written under a temporary name. One thread at a time; remove or keep it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Append. Raises `StorageFull`."""
        view = memoryview(data)
        with _full_disk_translated():
            # On a nearly full disk write() stores a part and raises nothing; only the next call fails.
            while view:
                view = view[os.write(self._fd, view) :]
        self._digest.update(data)
        self.size_bytes += len(data)

    def sync(self) -> None:
        """Force the content to disk and close the file."""
        with _full_disk_translated():
            os.fsync(self._fd)
        self.close()

    def close(self) -> None:
        """Close the file; again: nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Remove what was written, unless it was kept."""
        self.close()
        self.path.unlink(missing_ok=True)


class ArchiveStore:
    """The archive folder. Thread-safe: every file has one writer and a name of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tmp = root / "tmp"
        for folder in (self._tmp, root / "inputs", root / "outputs", root / "models"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def open_upload(self, expected_bytes: int | None) -> Upload:
        """Begin an upload; `expected_bytes` where the sender said it. Raises `StorageFull`."""
        free = shutil.disk_usage(self._root).free
        if free < (expected_bytes or 0) + RESERVE_BYTES:
            raise StorageFull(f"the server's disk has {free} bytes left, too few for this upload; nothing was kept")
        return Upload(self._tmp / secrets.token_hex(16))

    def keep(self, upload: Upload, key: str) -> StoredArchive:
        """Give a finished upload its lasting name. Raises `StorageFull`."""
        target = self._root / key
        upload.sync()
        with _full_disk_translated():
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            upload.path.rename(target)
            _sync_folder(target.parent)
        return StoredArchive(key, upload.sha256, upload.size_bytes)

    def path(self, key: str) -> Path:
        """Where an archive lies."""
        return self._root / key

    def remove(self, key: str) -> None:
        """Remove an archive; a reader that has it open reads on."""
        path = self._root / key
        path.unlink(missing_ok=True)
        if path.parent.parent != self._root:
            with contextlib.suppress(OSError):
                path.parent.rmdir()

    def stale_uploads(self, age_s: float) -> Iterator[Path]:
        """Temporary files that nobody has written to for `age_s`."""
        yield from _older_than(self._tmp, age_s)

    def kept_keys(self, age_s: float) -> Iterator[str]:
        """The keys of files at least `age_s` old."""
        for folder in ("inputs", "outputs", "models"):
            for path in _older_than(self._root / folder, age_s):
                yield str(path.relative_to(self._root))


def _older_than(folder: Path, age_s: float) -> Iterator[Path]:
    limit = time.time() - age_s
    # Unlike rglob, walk passes over folders that vanish meanwhile: the caller removes what it is given.
    for parent, _, names in os.walk(folder):
        for path in (Path(parent) / name for name in names):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < limit:
                    yield path


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _full_disk_translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull from error
        raise
