"""Acceptable zips in memory."""

import io
import zipfile
from collections.abc import Mapping

DEFAULT = {"a.txt": b"hello"}


def make_zip(files: Mapping[str, bytes] = DEFAULT, *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The same files make the same bytes, whenever it is called."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return target.getvalue()
