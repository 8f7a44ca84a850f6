"""A zip as its readers see it: the open file, and what was found acceptable in it."""

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
    """Relative POSIX path without a slash at the end."""
    is_dir: bool
    size: int
    """Declared bytes once decompressed; `read_entry` holds the data to it."""
    executable: bool
    method: int
    crc: int
    compressed_size: int
    data_offset: int


@dataclass(frozen=True)
class ArchiveDirectory:
    """What an acceptable archive holds, in the order of its directory."""

    entries: tuple[ArchiveEntry, ...]
    total_size: int
    """Bytes of all files once decompressed."""


@contextmanager
def opened(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    """The binary file of `source`; a file that was already open stays open."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    else:
        yield source
