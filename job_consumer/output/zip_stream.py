"""Streams what a run left in /output as a zip."""

import calendar
import os
import time
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import IO, cast

from contract.statuses import Reason
from contract.zip_rules import quoted
from job_consumer.descriptors import open_beneath, open_file, open_folder
from job_consumer.output.failures import ModelFailed, is_models_fault
from job_consumer.output.survey import OutputFile

_CHUNK_BYTES = 256 * 1024
_SAMPLE_BYTES = 64 * 1024
_EARLIEST_S = calendar.timegm((1980, 1, 1, 0, 0, 0))
_LATEST_S = calendar.timegm((2107, 12, 31, 23, 59, 58))


def stream_zip(folder: Path, files: list[OutputFile]) -> Iterator[bytes]:
    """Files of a folder as a zip in chunks of at most 512 KiB, in bounded memory; the same files give the same bytes.

    Raises `ModelFailed` (`output_rejected`) where a file has changed since the survey.
    """
    sink = _Sink()
    # zipfile's type asks for a whole file object; given only write and flush, it never seeks.
    with open_folder(folder) as folder_fd, zipfile.ZipFile(cast(IO[bytes], sink), "w") as archive:
        for file in files:
            if file.is_dir:
                archive.mkdir(_describe(file))
            else:
                with closing(_read(folder_fd, file)) as pieces:
                    yield from _write_entry(archive, sink, file, pieces)
    yield from sink.take(1)


def _write_entry(archive: zipfile.ZipFile, sink: "_Sink", file: OutputFile, pieces: Iterator[bytes]) -> Iterator[bytes]:
    first = next(pieces, b"")
    info = _describe(file)
    # Public only from Python 3.13 on, as compress_level, with this name kept.
    info._compresslevel = _choose_level(first[:_SAMPLE_BYTES])  # type: ignore[attr-defined]
    with archive.open(info, "w") as entry:
        for piece in chain([first], pieces):
            entry.write(piece)
            yield from sink.take(_CHUNK_BYTES)


def _choose_level(sample: bytes) -> int:
    # Level 1, because the network is faster than deflate at any other. Level 0 (deflate without compression, 20 times
    # as fast) rather than the method "stored": a reader that streams a zip cannot find the end of a stored entry.
    return 1 if len(zlib.compress(sample, 1)) < 0.95 * len(sample) else 0


def _describe(file: OutputFile) -> zipfile.ZipInfo:
    # UTC although zips mean local time: the bytes must not depend on the host's time zone.
    modified = time.gmtime(min(max(file.modified_s, _EARLIEST_S), _LATEST_S))
    info = zipfile.ZipInfo(file.path + "/" * file.is_dir, modified[:6])
    info.create_system = 3
    if file.is_dir:
        info.external_attr = 0o40755 << 16 | 0x10
        # `ZipFile.mkdir` reads it, but nothing sets it for a folder.
        info.CRC = 0
    else:
        info.external_attr = (0o100755 if file.executable else 0o100644) << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        # zipfile decides on zip64 by the expected size; it cannot do so once the header is sent.
        info.file_size = file.size
    return info


def _read(folder_fd: int, file: OutputFile) -> Generator[bytes, None, None]:
    """The bytes of a file, at most its validated size: what it has gained since was not in the budget."""
    *parents, name = file.source.split("/")
    left = file.size
    try:
        with open_beneath(folder_fd, parents) as parent_fd, open_file(name, dir_fd=parent_fd) as descriptor:
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) != file.identity:
                raise _changed(file)
            while left:
                piece = os.read(descriptor, min(left, _CHUNK_BYTES))
                if not piece:
                    raise _changed(file)
                left -= len(piece)
                yield piece
    except OSError as error:
        if not is_models_fault(error):
            raise
        raise _changed(file) from error


def _changed(file: OutputFile) -> ModelFailed:
    return ModelFailed(Reason.OUTPUT_REJECTED, f"{quoted(file.source)} in /output changed after the run had ended.")


class _Sink:
    """Holds what zipfile has written until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> int:
        self._pieces.append(data)
        self._size += len(data)
        return len(data)

    def flush(self) -> None:
        """Does nothing; zipfile calls it."""

    def take(self, at_least: int) -> Iterator[bytes]:
        """Yield what is held in one chunk, if it is as much."""
        if self._size >= at_least:
            chunk = b"".join(self._pieces)
            self._pieces, self._size = [], 0
            yield chunk
