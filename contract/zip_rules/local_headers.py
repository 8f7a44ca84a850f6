"""What stands before and behind an entry's data: its local header and its data descriptor (APPNOTE 6.3)."""

import struct
from typing import BinaryIO

from contract.errors import InvalidArchive
from contract.zip_rules.names import quoted
from contract.zip_rules.records import HAS_DESCRIPTOR, MEANINGFUL_FLAGS, DirectoryRecord, widen

_LOCAL = struct.Struct("<4s5H3L2H")
_DESCRIPTOR_SIGNATURE = b"PK\x07\x08"


def read_local(file: BinaryIO, record: DirectoryRecord, limit: int) -> tuple[int, int]:
    """Where the data of an entry begins and ends. Its local header must agree with the directory.

    The entry must lie before `limit`, where the directory begins.
    """
    quote = quoted(record.name)
    header = b""
    # Compared before seeking: a file cannot seek to every 64-bit offset.
    if record.header_offset + _LOCAL.size <= limit:
        file.seek(record.header_offset)
        header = file.read(_LOCAL.size)
    if header[:4] != b"PK\x03\x04":
        raise InvalidArchive(f"entry {quote} has no local header where the directory says. Make the zip again.")
    _, _, flags, method, _, _, crc, compressed_size, size, name_size, extra_size = _LOCAL.unpack(header)
    raw_name = file.read(name_size)
    if raw_name != record.raw_name:
        raise InvalidArchive(f"entry {quote} is named {quoted(raw_name)} in its local header. Make the zip again.")
    if method != record.method or (flags ^ record.flags) & MEANINGFUL_FLAGS:
        raise InvalidArchive(f"entry {quote} has other flags or another method in its local header. Make it again.")
    data_offset = record.header_offset + _LOCAL.size + name_size + extra_size
    end = data_offset + record.compressed_size
    if end > limit:
        raise InvalidArchive(f"entry {quote} reaches into the zip's directory. Make the zip again.")
    if flags & HAS_DESCRIPTOR:
        return data_offset, end + _descriptor_size(file, record, end, limit)
    size, compressed_size = widen(record.name, file.read(extra_size), size, compressed_size)
    if (crc, compressed_size, size) != (record.crc, record.compressed_size, record.size):
        raise InvalidArchive(f"entry {quote} has another size or CRC in its local header. Make the zip again.")
    return data_offset, end


def _descriptor_size(file: BinaryIO, record: DirectoryRecord, position: int, limit: int) -> int:
    """The size of the data descriptor, which has an optional signature and 32- or 64-bit sizes."""
    file.seek(position)
    found = file.read(min(24, limit - position))
    for layout in ("<LLL", "<LQQ"):
        if "Q" not in layout and max(record.size, record.compressed_size) > 0xFFFFFFFF:
            continue
        plain = struct.pack(layout, record.crc, record.compressed_size, record.size)
        for descriptor in (plain, _DESCRIPTOR_SIGNATURE + plain):
            if found.startswith(descriptor):
                return len(descriptor)
    raise InvalidArchive(f"entry {quoted(record.name)} has another size or CRC after its data. Make the zip again.")
