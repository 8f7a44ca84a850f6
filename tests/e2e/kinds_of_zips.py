"""Zips as programs make them; the rows of docs/compatibility.md."""

import io
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.services import missing
from tests.zips import make_zip

FILES = {"case/ct.nii": b"voxels" * 50}


@dataclass(frozen=True)
class ZipKind:
    """A zip, and what a model finds of it in /input: the content of case/ct.nii, or why it is refused."""

    name: str
    """As docs/compatibility.md has it."""
    make: Callable[[Path], bytes]
    """Given an empty folder to work in."""
    path: str = "case/ct.nii"
    refused: str = ""
    """What the answer to the submission says, if it is refused."""


def _plain(method: int, *, is_seekable: bool = True) -> Callable[[Path], bytes]:
    return lambda _: make_zip(FILES, method=method, is_seekable=is_seekable)


def _by_command(*command: str) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        if shutil.which(command[0]) is None:
            missing(f"{command[0]} is not installed")
        for path, data in FILES.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return (folder / "out.zip").read_bytes()

    return make


def _with_backslashes(_: Path) -> bytes:
    """As .NET before 4.6.1 made them, on Windows."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        info = zipfile.ZipInfo("case/ct.nii")
        info.create_system = 0
        archive.writestr(info, FILES["case/ct.nii"])
    return sink.getvalue().replace(b"case/ct.nii", b"case\\ct.nii")


def _in_code_page(_: Path) -> bytes:
    """A name in code page 437 and no flag for UTF-8, as old programs on Windows make them."""
    data = make_zip({"gr__.nii": FILES["case/ct.nii"]})
    return data.replace(b"gr__.nii", "grüß.nii".encode("cp437"))


def _encrypted(_: Path) -> bytes:
    data = bytearray(make_zip(FILES, method=zipfile.ZIP_STORED))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(signature) + offset
        data[at : at + 2] = struct.pack("<H", struct.unpack("<H", data[at : at + 2])[0] | 1)
    return bytes(data)


def _with_mac_files(_: Path) -> bytes:
    return make_zip({**FILES, "__MACOSX/case/._ct.nii": b"\0\5\26\7", "case/.DS_Store": b"\0"})


def _climbing(_: Path) -> bytes:
    return make_zip({"../ct.nii": b"x"})


def _in_zip64(_: Path) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive, archive.open("case/ct.nii", "w", force_zip64=True) as file:
        file.write(FILES["case/ct.nii"])
    return sink.getvalue()


KINDS = (
    ZipKind("stored", _plain(zipfile.ZIP_STORED)),
    ZipKind("deflated", _plain(zipfile.ZIP_DEFLATED)),
    ZipKind("written onto a pipe", _plain(zipfile.ZIP_DEFLATED, is_seekable=False)),
    ZipKind("zip64", _in_zip64),
    ZipKind(
        "of Python's `zipfile`",
        _by_command("python3", "-m", "zipfile", "-c", "out.zip", "case"),
    ),
    ZipKind("of `tar -a`", _by_command("bsdtar", "-a", "-cf", "out.zip", "--exclude", "out.zip", ".")),
    ZipKind("of Java's `jar`", _by_command("jar", "cMf", "out.zip", "case")),
    ZipKind("of a Mac", _with_mac_files),
    ZipKind("with backslashes, of Windows", _with_backslashes),
    ZipKind("with names in code page 437", _in_code_page, path="grüß.nii"),
    ZipKind("behind other bytes", lambda _: b"MZ" + bytes(100) + make_zip(FILES), refused="bytes were added"),
    ZipKind("with bzip2", _plain(zipfile.ZIP_BZIP2), refused="method 12"),
    ZipKind("with LZMA", _plain(zipfile.ZIP_LZMA), refused="method 14"),
    ZipKind("encrypted", _encrypted, refused="encrypted"),
    ZipKind("with a path that climbs", _climbing, refused="../ct.nii"),
    ZipKind("empty", lambda _: make_zip({}), path=""),
)
