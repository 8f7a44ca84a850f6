"""NIfTI-1 volumes in plain Python: enough for one volume of whole numbers, gzipped or not."""

import gzip
import struct
import zlib
from array import array
from dataclasses import dataclass
from pathlib import Path

HEADER_BYTES = 352
_KINDS = {2: ("B", 8), 4: ("h", 16), 512: ("H", 16)}
"""Codes of the format's data types, with array's letter and bits: uint8, int16, uint16."""


class NotReadableError(Exception):
    """The file is no volume that can be read here; the text says why."""


@dataclass(frozen=True)
class Volume:
    """Voxels in the order of the file: x runs fastest."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    voxels: "array[int]"


def read(path: Path) -> Volume:
    """Raises `NotReadableError`."""
    opened = gzip.open if path.name.endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise NotReadableError(f"{path.name}: {error}") from error
    if len(content) < HEADER_BYTES or struct.unpack_from("<i", content)[0] != 348 or content[344:347] != b"n+1":
        raise NotReadableError(f"{path.name}: not a little-endian NIfTI-1 file")
    axes, *shape = struct.unpack_from("<8h", content, 40)
    (kind,) = struct.unpack_from("<h", content, 70)
    if axes != 3 or kind not in _KINDS:
        raise NotReadableError(f"{path.name}: {axes} axes of data type {kind}; 3 axes of 2, 4 or 512 are read here")
    voxels = array(_KINDS[kind][0])
    start = int(struct.unpack_from("<f", content, 108)[0])
    count = shape[0] * shape[1] * shape[2]
    if len(content) < start + count * voxels.itemsize:
        raise NotReadableError(f"{path.name}: ends before its {count} voxels do")
    voxels.frombytes(content[start : start + count * voxels.itemsize])
    return Volume((shape[0], shape[1], shape[2]), struct.unpack_from("<3f", content, 80), voxels)


def write(path: Path, volume: Volume) -> None:
    """The same volume gives the same bytes."""
    kind, bits = next((kind, bits) for kind, (letter, bits) in _KINDS.items() if letter == volume.voxels.typecode)
    header = bytearray(HEADER_BYTES)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *volume.shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, kind, bits)
    struct.pack_into("<4f", header, 76, 1.0, *volume.spacing_mm)
    struct.pack_into("<2f", header, 108, HEADER_BYTES, 1.0)
    header[123] = 2  # millimetres
    header[344:348] = b"n+1\0"
    path.write_bytes(gzip.compress(bytes(header) + volume.voxels.tobytes(), mtime=0))


def write_png(path: Path, width: int, rows: "list[bytes]") -> None:
    """A picture of 8-bit RGB; each row has three bytes per pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">2I5B", width, len(rows), 8, 2, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
