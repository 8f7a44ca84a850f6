"""The rules for an archive's records. Reads the directory and the local headers, and decompresses nothing."""

import stat
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

from contract.errors import InvalidArchive
from contract.zip_rules.archive import DEFLATED, STORED, ArchiveDirectory, ArchiveEntry, opened
from contract.zip_rules.local_headers import read_local
from contract.zip_rules.names import count_with_folders, find_clash, name_fault, quoted
from contract.zip_rules.records import (
    ENCRYPTED,
    HEADERS_ENCRYPTED,
    MAX_ENTRIES,
    PATCHED,
    ROOT,
    STRONGLY_ENCRYPTED,
    DirectoryRecord,
    EndRecord,
    parse_directory,
    read_end_record,
)

_FEW_ENTRIES = 10_000


def check_archive(
    source: Path | BinaryIO,
    *,
    max_unpacked_bytes: int,
    max_entries: int = MAX_ENTRIES,
    while_large: AbstractContextManager[object] | None = None,
) -> ArchiveDirectory:
    """The entries of the archive. Raises `InvalidArchive` if it breaks a rule.

    Memory and time grow with the directory, never with the data. `while_large` is entered for an archive of more than
    10 000 entries: their names may take hundreds of megabytes for that time. The data itself is checked by
    `verify_contents`, or while it is unpacked.
    """
    with opened(source) as file:
        end = read_end_record(file, max_entries=max_entries)
        with while_large if while_large and end.entries > _FEW_ENTRIES else nullcontext():
            return _check_directory(file, end, max_unpacked_bytes, max_entries)


def _check_directory(file: BinaryIO, end: EndRecord, max_unpacked_bytes: int, max_entries: int) -> ArchiveDirectory:
    records = []
    for record in parse_directory(file, end):
        check_record(record)
        records.append(record)
    _check_sizes(records, max_unpacked_bytes)
    clash = find_clash((path_of(record), is_folder(record)) for record in records)
    if clash:
        raise InvalidArchive(f"entries {clash}. Rename or remove one of them.")
    _check_folders(records, max_entries)
    data_offsets = _locate(file, records, end.directory_offset)
    entries = tuple(entry_of(record, data_offsets[record.header_offset]) for record in records if record.name != ROOT)
    return ArchiveDirectory(entries, sum(entry.size for entry in entries))


def check_record(record: DirectoryRecord) -> None:
    """Raises `InvalidArchive` if a record by itself breaks a rule."""
    quote = quoted(record.name)
    fault = None if record.name == ROOT else name_fault(path_of(record))
    if fault:
        raise InvalidArchive(f"entry {quote}: {fault}. Rename it, and make the zip from inside its folder.")
    if record.flags & (ENCRYPTED | STRONGLY_ENCRYPTED | HEADERS_ENCRYPTED):
        raise InvalidArchive(f"entry {quote} is encrypted. Make the zip without a password.")
    if record.method not in (STORED, DEFLATED) or record.flags & PATCHED:
        raise InvalidArchive(
            f"entry {quote} is compressed by method {record.method}; only 0 (stored) and 8 (deflated) are accepted. "
            "Choose Deflate in your zip tool."
        )
    if record.method == STORED and record.size != record.compressed_size:
        raise InvalidArchive(f"entry {quote} is stored, but declares two different sizes. Make the zip again.")
    _check_mode(record)


def _check_mode(record: DirectoryRecord) -> None:
    quote = quoted(record.name)
    # Python's zipfile writes permissions without a file type, so a type of 0 means nothing.
    kind = stat.S_IFMT(record.mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InvalidArchive(
            f"entry {quote} is a link or a device. Zip only files and folders (`zip -r` follows links)."
        )
    if kind and stat.S_ISDIR(record.mode) != is_folder(record):
        raise InvalidArchive(f"entry {quote} is a folder by its mode or by its name, not by both. Make the zip again.")
    # On folders these bits are ordinary (a shared folder passes its group on), and no folder's mode is ever applied.
    if not is_folder(record) and record.mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX):
        raise InvalidArchive(f"entry {quote} is setuid, setgid or sticky. Remove the bit with `chmod ug-s,-t`.")
    if is_folder(record) and record.size:
        raise InvalidArchive(f"entry {quote} is a folder with data of its own. Make the zip again.")


def _check_sizes(records: list[DirectoryRecord], max_unpacked_bytes: int) -> None:
    total = sum(record.size for record in records)
    if total > max_unpacked_bytes:
        raise InvalidArchive(
            f"The zip unpacks to {total} bytes; this server accepts {max_unpacked_bytes}. Send less at once."
        )


def _check_folders(records: list[DirectoryRecord], max_entries: int) -> None:
    count = count_with_folders(path_of(record) for record in records if record.name != ROOT)
    if count > max_entries:
        raise InvalidArchive(
            f"The zip unpacks to {count} files and folders; at most {max_entries} are accepted. Put small files "
            "together, for example in a tar inside the zip."
        )


def _locate(file: BinaryIO, records: list[DirectoryRecord], directory_offset: int) -> dict[int, int]:
    """Where the data of each entry begins, by the offset of its header.

    Entries are visited in the order of the file, and each must begin after the end of the one before.
    """
    data_offsets: dict[int, int] = {}
    previous_end = 0
    for record in sorted(records, key=lambda record: record.header_offset):
        if record.header_offset < previous_end:
            raise InvalidArchive(f"entry {quoted(record.name)} overlaps another entry. Make the zip again.")
        if not data_offsets and record.header_offset:
            raise InvalidArchive("Something precedes the first entry of the zip. Make a plain zip, no self-extractor.")
        data_offsets[record.header_offset], previous_end = read_local(file, record, directory_offset)
    if not records and directory_offset:
        raise InvalidArchive("The zip's directory is empty, but something precedes it. Make the zip again.")
    return data_offsets


def is_folder(record: DirectoryRecord) -> bool:
    """Whether the entry is a folder."""
    return record.name.endswith("/")


def path_of(record: DirectoryRecord) -> str:
    """The name without the slash that marks a folder."""
    # At most one slash is removed, and not from "/": `name_fault` refuses the rest.
    return record.name[:-1] if len(record.name) > 1 and is_folder(record) else record.name


def entry_of(record: DirectoryRecord, data_offset: int) -> ArchiveEntry:
    """The entry of an accepted record whose data begins at `data_offset`."""
    return ArchiveEntry(
        name=path_of(record),
        is_dir=is_folder(record),
        size=record.size,
        executable=bool(record.mode & 0o111),
        method=record.method,
        crc=record.crc,
        compressed_size=record.compressed_size,
        data_offset=data_offset,
    )
