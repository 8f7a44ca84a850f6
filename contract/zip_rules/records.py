"""The records of a zip as its bytes have them (APPNOTE 6.3): the end record and the directory.

Every read is bounded before it is made: first the end record, then the directory, record by record.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

from contract.errors import InvalidArchive
from contract.zip_rules.names import quoted

MAX_ENTRIES = 100_000
"""How many files and folders an archive may hold, unless the operator says otherwise."""
MOST_ENTRIES = 1_000_000
"""The most that an operator may allow: each costs memory of whoever looks at the archive."""
RECORD_BYTES = 1200
"""What an entry may take of the directory: its fixed part, the longest name, and what tools add, each on average."""

ENCRYPTED = 1 << 0
HAS_DESCRIPTOR = 1 << 3
PATCHED = 1 << 5
STRONGLY_ENCRYPTED = 1 << 6
UTF8 = 1 << 11
HEADERS_ENCRYPTED = 1 << 13
MEANINGFUL_FLAGS = ENCRYPTED | HAS_DESCRIPTOR | PATCHED | STRONGLY_ENCRYPTED | UTF8 | HEADERS_ENCRYPTED
"""The other bits describe the effort of compression; local header and directory may differ in them."""

_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\x05\x06"
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_ZIP64_EXTRA = 0x0001
_TIMES_EXTRA = 0x5455
"""Info-ZIP's times in seconds since 1970, in UTC."""
_UNIX_SYSTEMS = (3, 19)
_DOS_SYSTEMS = (0, 6, 10, 11, 14)
"""FAT, HPFS, NTFS by its two numbers, and VFAT: no name there holds a backslash, so one in a zip separates folders."""
ROOT = "./"
"""The name of the folder that the others lie in."""
_UNIX_MODE_FOLLOWS = 0x8000
"""7-Zip's attribute bit: the upper half is a Unix mode, whatever the creating system is."""


@dataclass(frozen=True)
class EndRecord:
    """The end record: where the directory is, and how many entries it has."""

    entries: int
    directory_size: int
    directory_offset: int


@dataclass(frozen=True, slots=True)
class DirectoryRecord:
    """One entry of the directory, with its zip64 fields merged in."""

    raw_name: bytes
    name: str
    """As other tools read it: separated by slashes, without `./` before it. A folder's name ends in a slash."""
    flags: int
    method: int
    crc: int
    compressed_size: int
    size: int
    header_offset: int
    mode: int
    """The Unix mode, or 0 if the creator wrote none."""
    modified_at: datetime | None
    """In UTC where the creator wrote that; else by the creator's clock, whose zone a zip does not say."""


def read_end_record(file: BinaryIO, *, max_entries: int = MOST_ENTRIES) -> EndRecord:
    """The end record. Raises `InvalidArchive` unless it is the last thing in the file and consistent."""
    file_size = file.seek(0, 2)
    position, fields = _find_end(file, file_size)
    _, disk, directory_disk, here, entries, size, offset, _ = fields
    directory_end = position
    wide = _read_end64(file, position)
    if wide is not None:
        directory_end = position - _LOCATOR.size - _END64.size
        # A field that does not defer to zip64 must have the same value, or two readers would see two archives.
        narrow = (disk, directory_disk, here, entries, size, offset)
        sentinels = (0xFFFF,) * 4 + (0xFFFFFFFF,) * 2
        if any(value not in (sentinel, large) for value, sentinel, large in zip(narrow, sentinels, wide, strict=True)):
            raise InvalidArchive("The two end records of the zip contradict each other. Make the zip again.")
        disk, directory_disk, here, entries, size, offset = wide
    if disk or directory_disk or here != entries:
        raise InvalidArchive("The zip is one part of a split archive. Make it again in one part.")
    if entries > max_entries or size > max_entries * RECORD_BYTES:
        raise InvalidArchive(
            f"The zip has {entries} entries in a directory of {size} bytes; at most {max_entries} and "
            f"{max_entries * RECORD_BYTES} are accepted. Put small files together, for example in a tar inside the zip."
        )
    if offset + size != directory_end:
        hint = " Some tools write broken zips of more than 4 GiB; `zip` and 7-Zip do not." if file_size > 2**32 else ""
        raise InvalidArchive(
            f"The zip's directory should end at byte {offset + size}, but its end record is at {directory_end}: "
            f"bytes were added, cut or lost.{hint} Make the zip again, or repeat the upload."
        )
    return EndRecord(entries, size, offset)


def _find_end(file: BinaryIO, file_size: int) -> tuple[int, tuple[int, ...]]:
    tail_size = min(file_size, _END.size + 0xFFFF)
    file.seek(file_size - tail_size)
    tail = file.read(tail_size)
    found: list[tuple[int, tuple[int, ...]]] = []
    start = tail.find(_END_SIGNATURE)
    while 0 <= start <= tail_size - _END.size:
        fields = _END.unpack_from(tail, start)
        if start + _END.size + fields[-1] == tail_size:
            found.append((file_size - tail_size + start, fields))
        start = tail.find(_END_SIGNATURE, start + 1)
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidArchive("The zip has more than one end record. Make the zip again, without a comment.")
    if _END_SIGNATURE in tail:
        raise InvalidArchive("The zip's end record is not the last thing in the file: bytes follow it or are missing.")
    raise InvalidArchive("This is no zip, or its end is missing. Post a zip file, and repeat an upload that broke off.")


def _read_end64(file: BinaryIO, position: int) -> tuple[int, ...] | None:
    """Disk, directory's disk, entries here, entries, size and offset of the zip64 end record, or None without one."""
    if position < _LOCATOR.size + _END64.size:
        return None
    file.seek(position - _LOCATOR.size - _END64.size)
    data = file.read(_END64.size + _LOCATOR.size)
    if data[_END64.size :][:4] != b"PK\x06\x07":
        return None
    _, disk, offset, disks = _LOCATOR.unpack_from(data, _END64.size)
    signature, size, _, _, *fields = _END64.unpack_from(data)
    expected = position - _LOCATOR.size - _END64.size
    if disk or disks > 1:
        raise InvalidArchive("The zip is one part of a split archive. Make it again in one part.")
    if signature != b"PK\x06\x06" or offset != expected or size != _END64.size - 12:
        raise InvalidArchive("The zip's zip64 end record is not where or what it should be. Make the zip again.")
    return tuple(fields)


def parse_directory(file: BinaryIO, end: EndRecord) -> Iterator[DirectoryRecord]:
    """The records of the directory, read as they are asked for: nothing else may use `file` meanwhile.

    Raises `InvalidArchive` unless they fill it exactly.
    """
    for fields, raw_name, extra in _scan(file, end):
        yield _parse_entry(fields, raw_name, extra)


def parse_after(file: BinaryIO, end: EndRecord, name: str) -> Iterator[DirectoryRecord]:
    """The record called `name` and those behind it; of those before it nothing but the name is looked at."""
    found = False
    for fields, raw_name, extra in _scan(file, end):
        found = found or _meant_name(fields, raw_name) == name
        if found:
            yield _parse_entry(fields, raw_name, extra)


def _scan(file: BinaryIO, end: EndRecord) -> Iterator[tuple[tuple[int, ...], bytes, bytes]]:
    """The fixed fields, the name and the extra area of each record."""
    file.seek(end.directory_offset)
    left = end.directory_size
    for number in range(end.entries):
        head = file.read(_ENTRY.size) if left >= _ENTRY.size else b""
        if head[:4] != b"PK\x01\x02":
            raise _breaks_off(number, end)
        fields = _ENTRY.unpack(head)
        name_size, extra_size, comment_size = fields[10:13]
        left -= _ENTRY.size + name_size + extra_size + comment_size
        if left < 0:
            raise _breaks_off(number, end)
        rest = file.read(name_size + extra_size + comment_size)
        yield fields, rest[:name_size], rest[name_size : name_size + extra_size]
    if left:
        raise InvalidArchive(
            f"The zip's directory holds more than the {end.entries} entries it declares. Make it again."
        )


def _breaks_off(number: int, end: EndRecord) -> InvalidArchive:
    return InvalidArchive(f"The zip's directory breaks off at entry {number} of {end.entries}. Make the zip again.")


def _parse_entry(fields: tuple[int, ...], raw_name: bytes, extra: bytes) -> DirectoryRecord:
    _, made_by, _, flags, method, time, date, crc, compressed_size, size, _, _, _, disk, _, attributes, offset = fields
    name = _meant_name(fields, raw_name)
    size, compressed_size, offset = widen(name, extra, size, compressed_size, offset)
    # 0xFFFF defers to zip64, whose offset into this file is checked like any other.
    if disk not in (0, 0xFFFF):
        raise InvalidArchive(f"entry {quoted(name)} lies in another part of a split archive. Make it in one part.")
    mode = attributes >> 16 if made_by >> 8 in _UNIX_SYSTEMS or attributes & _UNIX_MODE_FOLLOWS else 0
    modified_at = _read_unix_time(extra) or _read_dos_time(date, time)
    return DirectoryRecord(raw_name, name, flags, method, crc, compressed_size, size, offset, mode, modified_at)


def _read_unix_time(extra: bytes) -> datetime | None:
    for tag, data in _extra_fields(extra):
        # The first bit of the first byte says that the time of the last change follows.
        if tag == _TIMES_EXTRA and len(data) >= 5 and data[0] & 1:
            return datetime.fromtimestamp(int.from_bytes(data[1:5], "little"), UTC)
    return None


def _read_dos_time(date: int, time: int) -> datetime | None:
    year, month, day = 1980 + (date >> 9), date >> 5 & 15, date & 31
    try:
        return datetime(year, month, day, time >> 11, time >> 5 & 63, (time & 31) * 2, tzinfo=UTC)
    except ValueError:
        # Some tools write zeros.
        return None


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """The whole fields of an extra area. Tools that align entries pad it with up to three bytes."""
    while len(extra) >= 4:
        tag, size = struct.unpack_from("<HH", extra)
        if 4 + size > len(extra):
            return
        yield tag, extra[4 : 4 + size]
        extra = extra[4 + size :]


def _meant_name(fields: tuple[int, ...], raw: bytes) -> str:
    name = _decode_name(raw, bool(fields[3] & UTF8))
    if fields[1] >> 8 in _DOS_SYSTEMS:
        # The .NET Framework's names, among others, are as Windows writes them.
        name = name.replace("\\", "/")
    # `tar -a -cf x.zip .` puts it before every name. The folder itself stays `./`.
    return name[2:] if name.startswith("./") and name != ROOT else name


def _decode_name(raw: bytes, is_utf8: bool) -> str:
    # Without the flag the standard means cp437, but `zip` and the macOS Finder write UTF-8 without setting it.
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        if is_utf8:
            raise InvalidArchive(f"entry {quoted(raw)} says its name is UTF-8, and it is not. Rename it.") from error
        return raw.decode("cp437")


def widen(name: str, extra: bytes, *fields: int) -> tuple[int, ...]:
    """The fields, with each that is all ones replaced by the next value of the zip64 extra field."""
    if 0xFFFFFFFF not in fields:
        return fields
    wide = _zip64_extra(name, extra)
    values = list(fields)
    for index, value in enumerate(fields):
        if value == 0xFFFFFFFF:
            if len(wide) < 8:
                raise InvalidArchive(f"entry {quoted(name)} lacks its zip64 sizes. Make the zip again.")
            values[index] = int.from_bytes(wide[:8], "little")
            wide = wide[8:]
    return tuple(values)


def _zip64_extra(name: str, extra: bytes) -> bytes:
    found: list[bytes] = []
    # Tools that align entries pad the field with up to three bytes.
    while len(extra) >= 4:
        tag, size = struct.unpack_from("<HH", extra)
        if 4 + size > len(extra):
            raise InvalidArchive(f"entry {quoted(name)} has a broken extra field. Make the zip again.")
        if tag == _ZIP64_EXTRA:
            found.append(extra[4 : 4 + size])
        extra = extra[4 + size :]
    if len(found) > 1:
        raise InvalidArchive(f"entry {quoted(name)} has two zip64 fields. Make the zip again.")
    return found[0] if found else b""
