"""The decompressed bytes of an archive, checked against its directory."""

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
    """Decompress every entry without writing it. Raises `InvalidArchive` for data that is not as declared."""
    with opened(source) as file:
        for entry in directory.entries:
            for _ in read_entry(file, entry):
                pass


def read_entry(file: BinaryIO, entry: ArchiveEntry) -> Iterator[bytes]:
    """The decompressed bytes of an entry in chunks of at most 1 MiB, and never more than it declares.

    Raises `InvalidArchive` unless the data decompresses to exactly the declared size and CRC. Both are checked at the
    end, so a caller that stops early has verified nothing.
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


def read_range(file: BinaryIO, entry: ArchiveEntry, start: int, stop: int) -> Iterator[bytes]:
    """The decompressed bytes of an entry from `start` up to `stop`, in chunks of at most 1 MiB.

    A stored entry is read from `start` on; a deflated one is decompressed up to there, and nothing of it is kept. Of a
    part the CRC says nothing; the whole is checked as by `read_entry` before its last chunk is given. Raises
    `InvalidArchive`.
    """
    if (start, stop) == (0, entry.size):
        yield from _held_back(read_entry(file, entry))
        return
    if entry.method != DEFLATED:
        yield from _packed(file, entry, start, stop)
        return
    position = 0
    for chunk in _inflate(file, entry):
        if position >= stop:
            return
        if piece := chunk[max(0, start - position) : stop - position]:
            yield piece
        position += len(chunk)
    if position < stop:
        raise InvalidArchive(f"entry {quoted(entry.name)} holds {position} bytes, not the {entry.size} it declares.")


def _held_back(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Each chunk once the next one has come: whoever counts bytes never has all of a damaged entry."""
    last = b""
    for chunk in chunks:
        if last:
            yield last
        last = chunk
    yield last


def _packed(file: BinaryIO, entry: ArchiveEntry, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    # Other reads may use the file between two chunks, so each read seeks.
    position = entry.data_offset + start
    end = entry.data_offset + (entry.compressed_size if stop is None else stop)
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
