"""One file inside a stored zip as an answer: whole, in part, or its headers alone.

The bytes are a user's, and the door's pages have the same origin. So a browser is told to store them rather than show
them, not to guess what they are, and to run nothing of them.
"""

import mimetypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from contract.errors import FileNotFound
from contract.zip_rules import ArchiveEntry, find_file, read_range
from kit.openapi import OCTETS

_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
_EXECUTABLE = re.compile(r"(text|application)/(x-)?(javascript|ecmascript)|text/css")
"""What a page that was tricked into it could load from its own origin."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_TYPES = mimetypes.MimeTypes()
"""The types that Python itself knows: the module's own functions read files of the host."""


def media_type_of(path: str) -> str:
    """The media type that a name promises, the same on every host. Scripts and style sheets are plain text."""
    # Without the slash a name such as "data:text/html" would be read as a URL.
    kind, encoding = _TYPES.guess_type("/" + path)
    if encoding is not None:
        return _COMPRESSED.get(encoding, OCTETS)
    if kind is None:
        return OCTETS
    return "text/plain" if _EXECUTABLE.fullmatch(kind) else kind


def answer_file(request: Request, archive: Path, sha256: str, path: str) -> Response:
    """The answer to a request for the file `path` of an archive. Raises `FileNotFound`, `InvalidArchive`."""
    file = archive.open("rb")
    try:
        entry = find_file(file, path)
        if entry is None:
            raise FileNotFound
        answer = _answer(request, file, entry, sha256)
    except BaseException:
        file.close()
        raise
    if not isinstance(answer, _Stream):
        file.close()
    return answer


def _answer(request: Request, file: BinaryIO, entry: ArchiveEntry, sha256: str) -> Response:
    etag = f'"{sha256}.{entry.crc:08x}"'
    headers = _headers(entry, etag)
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"etag": etag})
    # A range is about the body, which the answer to HEAD has not.
    if request.method == "HEAD":
        return Response(headers={**headers, "content-length": str(entry.size)})
    asked = request.headers.get("range", "") if request.headers.get("if-range", etag) == etag else ""
    part = find_part(asked, entry.size)
    if part is None:
        return _Stream(file, entry, (0, entry.size), 200, headers)
    start, stop = part
    if start >= stop:
        return Response(status_code=416, headers={"content-range": f"bytes */{entry.size}"})
    return _Stream(file, entry, part, 206, {**headers, "content-range": f"bytes {start}-{stop - 1}/{entry.size}"})


def _headers(entry: ArchiveEntry, etag: str) -> dict[str, str]:
    return {
        "etag": etag,
        "accept-ranges": "bytes",
        "cache-control": "private, no-transform",
        "content-type": media_type_of(entry.name),
        "content-disposition": _disposition(entry.name.rpartition("/")[2]),
        "content-security-policy": "sandbox; default-src 'none'",
        "x-content-type-options": "nosniff",
    }


def _disposition(name: str) -> str:
    encoded = quote(name, safe="")
    return f'attachment; filename="{name}"' if encoded == name else f"attachment; filename*=UTF-8''{encoded}"


def find_part(asked: str, size: int) -> tuple[int, int] | None:
    """Where the asked range begins and ends, empty if it lies outside; None for the whole (RFC 9110, 14.2).

    For several ranges, which would make a small request expensive, the whole is a correct answer.
    """
    found = _RANGE.fullmatch(asked.replace(" ", ""))
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


class _Stream(StreamingResponse):
    """A part of an entry. Owns the open archive."""

    def __init__(
        self, file: BinaryIO, entry: ArchiveEntry, part: tuple[int, int], status: int, headers: dict[str, str]
    ) -> None:
        self._file = file
        start, stop = part
        pieces: Iterator[bytes] = read_range(file, entry, start, stop)
        super().__init__(pieces, status, {**headers, "content-length": str(stop - start)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the part."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()
