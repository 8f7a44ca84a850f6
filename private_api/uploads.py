"""Receives a zip from an HTTP body straight into the archive store: raw, or the `zip_file` part of a multipart form.

Nothing is spooled: while a thread hashes and writes one MiB, at most about one more is received.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, Self

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from contract.errors import InvalidRequest, TooLarge
from private_api.archives import ArchiveStore, Upload

_BATCH_BYTES = 1024**2
_MULTIPART_OVERHEAD_BYTES = 64 * 1024
"""How much longer than its zip a form may be: boundaries and part headers."""


class _Parser(Protocol):
    def feed(self, chunk: bytes) -> bytes: ...

    def finish(self) -> bool: ...


class _RawBody:
    """The whole body is the zip."""

    def __init__(self) -> None:
        self._seen = False

    def feed(self, chunk: bytes) -> bytes:
        self._seen = self._seen or bool(chunk)
        return chunk

    def finish(self) -> bool:
        return self._seen


class _Form:
    """A multipart form whose only part is `zip_file`."""

    def __init__(self, boundary: bytes) -> None:
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_begin": self._on_header_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_end": self._on_end,
            },
        )
        self._header = b""
        self._disposition = b""
        self._zips = 0
        self._ended = False
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> bytes:
        self._data = []
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest(f"the multipart body cannot be parsed: {error}") from error
        return b"".join(self._data)

    def finish(self) -> bool:
        if not self._ended:
            raise InvalidRequest("the multipart body ends before its closing boundary")
        return self._zips == 1

    def _on_part_begin(self) -> None:
        self._disposition = b""

    def _on_header_begin(self) -> None:
        self._header = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition += data[start:end]

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"")
        if name != b"zip_file":
            raise InvalidRequest(f"unknown form field {name.decode(errors='replace')!r}; the zip is sent as 'zip_file'")
        self._zips += 1
        if self._zips > 1:
            raise InvalidRequest("'zip_file' was sent twice")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _on_end(self) -> None:
        self._ended = True


@asynccontextmanager
async def receive_zip(request: Request, store: ArchiveStore, *, max_bytes: int) -> AsyncIterator[Upload]:
    """Write the request's zip to a temporary file, which is removed when the block ends unless it was kept.

    Raises `TooLarge`, `InvalidRequest`, `StorageFull`, and Starlette's `ClientDisconnect` if the client goes away.
    """
    async with _receive(request, store, max_bytes) as upload:
        if upload is None:
            raise InvalidRequest("send the zip as multipart/form-data field 'zip_file', or as an application/zip body")
        yield upload


@asynccontextmanager
async def receive_optional_zip(
    request: Request, store: ArchiveStore, *, max_bytes: int
) -> AsyncIterator[Upload | None]:
    """Like `receive_zip`, but yields None if the body has no zip, or the empty one that browsers send for no file."""
    async with _receive(request, store, max_bytes) as upload:
        yield upload if upload is not None and upload.size_bytes else None


@asynccontextmanager
async def _receive(request: Request, store: ArchiveStore, max_bytes: int) -> AsyncIterator[Upload | None]:
    parser = _pick_parser(request)
    if parser is None:
        yield None
        return
    expected = _check_length(request, max_bytes, isinstance(parser, _Form))
    upload = await run_in_threadpool(store.open_upload, expected)
    try:
        await _write_body(request, parser, upload, max_bytes)
        yield upload if parser.finish() else None
    finally:
        await run_in_threadpool(upload.discard)


def announced_bytes(request: Request) -> int:
    """How many bytes the request's zip has at least, as far as its headers tell."""
    length = int(request.headers.get("content-length", 0))
    content_type, _ = parse_options_header(request.headers.get("content-type", ""))
    overhead = _MULTIPART_OVERHEAD_BYTES if content_type == b"multipart/form-data" else 0
    return max(1, length - overhead)


async def _write_body(request: Request, parser: _Parser, upload: Upload, max_bytes: int) -> None:
    pending: list[bytes] = []
    waiting = total = received = 0
    async with _Writer(upload) as writer:
        async for chunk in request.stream():
            data = parser.feed(chunk)
            total += len(data)
            received += len(chunk)
            # A form may be endless around its zip.
            if total > max_bytes or received > max_bytes + _MULTIPART_OVERHEAD_BYTES:
                raise TooLarge(f"the zip is larger than MAX_UPLOAD_BYTES={max_bytes} bytes")
            pending.append(data)
            waiting += len(data)
            if waiting >= _BATCH_BYTES:
                await writer.write(pending)
                pending, waiting = [], 0
        if waiting:
            await writer.write(pending)


class _Writer:
    """Writes in a thread while its caller goes on; leaving the block waits for that. One write at a time."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._writing: asyncio.Task[None] | None = None

    async def write(self, pieces: list[bytes]) -> None:
        """Begin to write once the write before has ended. Raises what that raised."""
        await self._wait()
        self._writing = asyncio.create_task(run_in_threadpool(self._write_all, pieces))

    def _write_all(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._upload.write(piece)

    async def _wait(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await writing

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_exc: object) -> None:
        if kind is None:
            await self._wait()
        elif self._writing is not None:
            # The error that ended the block counts; the file must not be closed under the thread.
            await asyncio.gather(self._writing, return_exceptions=True)


def _pick_parser(request: Request) -> _RawBody | _Form | None:
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type == b"multipart/form-data":
        boundary = options.get(b"boundary")
        if not boundary:
            raise InvalidRequest("the Content-Type multipart/form-data names no boundary")
        return _Form(boundary)
    if content_type in (b"application/zip", b"application/octet-stream", b"application/x-zip-compressed"):
        return _RawBody()
    if content_type in (b"", b"application/x-www-form-urlencoded"):
        return None
    raise InvalidRequest(
        f"the Content-Type {content_type.decode(errors='replace')!r} is not multipart/form-data or application/zip"
    )


def _check_length(request: Request, max_bytes: int, is_form: bool) -> int | None:
    header = request.headers.get("content-length")
    if header is None:
        return None
    length = int(header)
    if length > max_bytes + (_MULTIPART_OVERHEAD_BYTES if is_form else 0):
        raise TooLarge(f"the body has {length} bytes; this server accepts MAX_UPLOAD_BYTES={max_bytes} bytes")
    return length
