"""The decompressed bytes of an archive, held to what its directory declares. The only place that decompresses."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from contract.errors import InvalidArchive
from contract.zip_rules.archive import DEFLATED, ArchiveDirectory, ArchiveEntry, opened
from contract.zip_rules.names import quoted

_PACKED_CHUNK_BYTES = 64 * 1024
_CHUNK_BYTES = 1024**2


def verify_contents(source: Path | BinaryIO, directory: ArchiveDirectory) -> None:
    """Decompress every entry without writing it anywhere; raises `InvalidArchive` where the data is not as declared."""
    with opened(source) as file:
        for entry in directory.entries:
            for _ in read_entry(file, entry):
                pass


def read_entry(file: BinaryIO, entry: ArchiveEntry) -> Iterator[bytes]:
    """The decompressed bytes of an entry in chunks of at most 1 MiB, never more bytes than it declares.

    Raises `InvalidArchive` where the data does not decompress to exactly the declared size and CRC. The end is
    checked last: a caller that stops early has checked nothing.
    """
    done, crc = 0, 0
    for chunk in _inflate(file, entry) if entry.method == DEFLATED else _packed(file, entry):
        done += len(chunk)
        if done > entry.size:
            raise InvalidArchive(f"entry {quoted(entry.name)} holds more than the {entry.size} bytes it declares.")
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if done != entry.size:
        raise InvalidArchive(f"entry {quoted(entry.name)} holds {done} bytes, not the {entry.size} it declares.")
    if crc != entry.crc:
        raise InvalidArchive(f"entry {quoted(entry.name)} is damaged: its CRC is wrong. Make the zip again.")


def _packed(file: BinaryIO, entry: ArchiveEntry) -> Iterator[bytes]:
    # The file may be shared with other reads between two chunks, so each read seeks.
    position, end = entry.data_offset, entry.data_offset + entry.compressed_size
    while position < end:
        file.seek(position)
        chunk = file.read(min(_PACKED_CHUNK_BYTES, end - position))
        if not chunk:
            raise InvalidArchive(f"entry {quoted(entry.name)} breaks off. Repeat the upload.")
        position += len(chunk)
        yield chunk


def _inflate(file: BinaryIO, entry: ArchiveEntry) -> Iterator[bytes]:
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for packed in _packed(file, entry):
            if decoder.eof:
                raise InvalidArchive(f"entry {quoted(entry.name)} has bytes after its compressed data.")
            waiting = packed
            while waiting:
                chunk = decoder.decompress(waiting, _CHUNK_BYTES)
                waiting = decoder.unconsumed_tail
                if chunk:
                    yield chunk
        while chunk := decoder.decompress(b"", _CHUNK_BYTES):
            yield chunk
    except zlib.error as error:
        raise InvalidArchive(f"entry {quoted(entry.name)} is damaged: {error}. Make the zip again.") from error
    # Some tools write an empty file as deflated with no data at all.
    if (not decoder.eof and entry.compressed_size) or decoder.unused_data:
        raise InvalidArchive(f"entry {quoted(entry.name)} does not end where its compressed data ends.")
