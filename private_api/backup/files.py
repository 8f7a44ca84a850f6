"""A backup as files: the form that a backup writes and a restore reads.

    <folder>/tables/<table>.jsonl   one row per line
    <folder>/files.jsonl            one line per archive and log
    <folder>/archives|logs/         the files themselves
    <folder>/manifest.json          the hashes of all lists; written last, so a folder without it is no backup

The lists name the hash of each file, and the manifest that of each list: no byte of a backup goes unchecked, and
memory does not grow with the size of a backup.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

FORMAT = 1
MANIFEST = "manifest.json"
FILES = "files.jsonl"
_CHUNK_BYTES = 1024**2


class BackupError(Exception):
    """Why a backup or a restore cannot be made, in words for the operator."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Listing(_Record):
    """A file of JSON lines."""

    lines: int
    sha256: str


class FileEntry(_Record):
    """A line of `files.jsonl`."""

    path: str
    """Below the backup's folder."""
    sha256: str
    size_bytes: int
    state: Literal["kept", "removed", "damaged"] = "kept"
    """`removed`: the server removed it while the backup ran. `damaged`: it was missing, or its bytes were not those of
    its row. Neither kind is in the backup."""


class Manifest(_Record):
    """What a backup holds."""

    format: int = FORMAT
    release: str
    revision: str
    """The schema of the rows, as Alembic names it."""
    created_at: datetime
    tables: dict[str, Listing]
    files: Listing
    size_bytes: int
    """Total of the archives and logs."""
    removed: int
    damaged: int


class LinesWriter:
    """Writes a list and computes its hash. The list is durable once the `with` block ends."""

    def __init__(self, path: Path) -> None:
        self._file = create_file(path)
        self._digest = hashlib.sha256()
        self._lines = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _close_durably(self._file)

    def write(self, record: dict[str, Any]) -> None:
        """Add a line. Raises `TypeError` for a value that JSON cannot express."""
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self._file.write(line)
        self._digest.update(line)
        self._lines += 1

    @property
    def listing(self) -> Listing:
        """Number of lines and hash of what was written so far."""
        return Listing(lines=self._lines, sha256=self._digest.hexdigest())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a list, one at a time."""
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def read_entries(folder: Path) -> Iterator[FileEntry]:
    """The archives and logs that the backup holds."""
    for line in read_lines(folder / FILES):
        entry = FileEntry.model_validate(line)
        if entry.state == "kept":
            yield entry


def create_file(path: Path) -> BinaryIO:
    """A new file that only its owner can read: backups hold users' inputs and outputs."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def copy_file(source: Path, target: Path) -> tuple[str, int]:
    """Copy to a new, durable file. Returns the sha256 and the size of what was copied."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reader:
        file = create_file(target)
        try:
            while chunk := reader.read(_CHUNK_BYTES):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        finally:
            _close_durably(file)
    return digest.hexdigest(), size


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Complete the backup: a folder without a manifest is none."""
    # The files are on disk already; this syncs the folders that name them.
    os.sync()
    temporary = folder / f"{MANIFEST}.tmp"
    file = create_file(temporary)
    file.write(manifest.model_dump_json(indent=2).encode() + b"\n")
    _close_durably(file)
    temporary.rename(folder / MANIFEST)
    os.sync()


def read_manifest(folder: Path) -> Manifest:
    """What the folder holds. Raises `BackupError` if that is no backup that this release can read."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BackupError(f"{folder} is not a complete backup: it has no {MANIFEST}, which is written last") from error
    except ValueError as error:
        raise BackupError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BackupError(f"{path} is not in format {FORMAT}, the only one that this release reads")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise BackupError(f"{path} is damaged: {error.error_count()} of its members are missing or wrong") from error


def verify(folder: Path, manifest: Manifest) -> None:
    """Read every byte of the backup. Raises `BackupError` naming the first file that has changed."""
    for name, listing in manifest.tables.items():
        _verify_list(inside(folder, f"tables/{name}.jsonl"), listing)
    _verify_list(folder / FILES, manifest.files)
    for entry in read_entries(folder):
        path = inside(folder, entry.path)
        if hash_file(path) != (entry.sha256, entry.size_bytes):
            raise BackupError(f"{path} is damaged: its sha256 is not {entry.sha256}; nothing was restored")


def inside(folder: Path, path: str) -> Path:
    """A path of a backup, below a folder. Raises `BackupError` for one that leads outside."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise BackupError(f"the backup names a file outside its folder: {path!r}")
    return folder.joinpath(*parts)


def hash_file(path: Path) -> tuple[str, int]:
    """The sha256 and the size of a file. Raises `BackupError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error.strerror}") from error


def _verify_list(path: Path, listing: Listing) -> None:
    if hash_file(path)[0] != listing.sha256:
        raise BackupError(f"{path} is damaged: its sha256 is not {listing.sha256}; nothing was restored")


def _close_durably(file: BinaryIO) -> None:
    with file:
        file.flush()
        os.fsync(file.fileno())
