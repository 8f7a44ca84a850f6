"""A zip as its readers see it: the open file, and the entries of an accepted archive."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

STORED = 0
DEFLATED = 8


@dataclass(frozen=True)
class ArchiveEntry:
    """One file or folder of an archive that `check_archive` accepted."""

    name: str
    """A relative POSIX path without a trailing slash."""
    is_dir: bool
    size: int
    """The declared size once decompressed; `read_entry` enforces it."""
    executable: bool
    method: int
    crc: int
    compressed_size: int
    data_offset: int


@dataclass(frozen=True)
class ArchiveDirectory:
    """The entries of an accepted archive, in the order of its directory."""

    entries: tuple[ArchiveEntry, ...]
    total_size: int
    """Total size of all files once decompressed."""


@contextmanager
def opened(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    """`source` as a binary file. One that was already open stays open."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    else:
        yield source
