"""The one maker of acceptable zips; broken ones are in tests/unit/zip_corpus.py."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DEFAULT = {"a.txt": b"hello"}


def make_zip(
    files: Mapping[str, bytes] = DEFAULT, *, method: int = zipfile.ZIP_DEFLATED, is_seekable: bool = True
) -> bytes:
    """The same files make the same bytes, whenever it is called. Unless it `is_seekable`, it is made as onto a pipe."""
    target = io.BytesIO()
    sink: Any = target
    if not is_seekable:
        sink = type("Pipe", (), {"write": lambda _, data: target.write(data), "flush": lambda _: None})()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return target.getvalue()


def zip_folder(folder: Path) -> bytes:
    """A zip of the files below a folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return make_zip({str(path.relative_to(folder)): path.read_bytes() for path in paths})


def read_zip(data: bytes) -> dict[str, bytes]:
    """The files of a zip; folders are left out."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
