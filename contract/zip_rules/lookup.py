"""Single files of an archive, found in its directory without building an entry of every other one."""

from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import BinaryIO

from contract.zip_rules.archive import ArchiveEntry
from contract.zip_rules.local_headers import read_local
from contract.zip_rules.records import parse_after, parse_directory, read_end_record
from contract.zip_rules.rules import check_record, entry_of, is_folder


@dataclass(frozen=True)
class ListedFile:
    """A file as the directory of its archive describes it."""

    path: str
    size: int
    """Once decompressed."""
    crc: int
    modified_at: datetime | None


def list_files(file: BinaryIO, *, after: str | None, limit: int) -> list[ListedFile] | None:
    """A page of the files in the order of the directory, which begins behind the file `after`; folders are left out.

    None if there is no file `after`. Raises `InvalidArchive` for what is no zip.
    """
    end = read_end_record(file)
    if after is None:
        records = parse_directory(file, end)
    else:
        records = parse_after(file, end, after)
        known = next(records, None)
        if known is None or is_folder(known):
            return None
    page = islice((record for record in records if not is_folder(record)), limit)
    return [ListedFile(record.name, record.size, record.crc, record.modified_at) for record in page]


def find_file(file: BinaryIO, path: str) -> ArchiveEntry | None:
    """The file whose name in the directory is exactly `path`, or None. Raises `InvalidArchive`."""
    end = read_end_record(file)
    record = next(parse_after(file, end, path), None)
    if record is None or is_folder(record):
        return None
    check_record(record)
    data_offset, _ = read_local(file, record, end.directory_offset)
    return entry_of(record, data_offset)
