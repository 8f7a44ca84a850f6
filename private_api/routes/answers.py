"""Answers that stream: a zip, a log, and a log that is still growing."""

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from contract.access import Caller
from contract.archive_fetch import AS_HEADER, AS_PATH, is_loopback, place_headers
from kit.openapi import OCTETS, ZIP
from private_api.archives import StoredArchive
from private_api.database import Database
from private_api.routes.file_answers import find_part
from private_api.services import Services
from private_api.soundness import note_damaged
from private_api.task_logs import TaskLogs
from private_api.tasks.read import find_log
from private_api.watch import Watcher

_CHUNK_BYTES = 1024**2
_FOLLOW_S = 1.0
"""Between two reads of a growing log."""


class ZipResponse(FileResponse):
    """A stored zip. Its ETag is the sha256, so a range can be resumed against the same bytes only.

    A whole zip whose bytes are no longer those that were stored is cut before its last byte; of a range the digest says
    nothing. It is sent as `application/octet-stream` to a caller that accepts that and does not name `application/zip`.
    An output whose task has warnings says how many.
    """

    chunk_size = _CHUNK_BYTES

    def __init__(
        self, services: Services, archive: StoredArchive, if_none_match: str | None = None, *, warning_count: int = 0
    ) -> None:
        self._archive = archive
        self._database = services.database
        etag = f'"{archive.sha256}"'
        self._is_known = if_none_match is not None and etag in if_none_match
        super().__init__(
            services.store.path(archive.key),
            media_type=ZIP,
            filename="output.zip",
            headers={
                "etag": etag,
                # What was stored, also where the file has another size by now.
                "content-length": str(archive.size_bytes),
                "repr-digest": f"sha-256=:{_base64_of_hex(archive.sha256)}:",
                "cache-control": "private, no-transform",
                **({"x-task-warnings": str(warning_count)} if warning_count else {}),
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole file, one range of it, or 304."""
        if self._is_known:
            await Response(status_code=304, headers={"etag": self.headers["etag"]})(scope, receive, send)
            return
        headers = Request(scope).headers
        accepted = headers.get("accept", "")
        if OCTETS in accepted and ZIP not in accepted:
            self.headers["content-type"] = OCTETS
        if find_part(headers.get("range", ""), self._archive.size_bytes) is None:
            # Many ranges would make a small request expensive, and the framework answers malformed ones with an error
            # of its own; the whole file is a correct answer to both.
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"range"]}
        is_head = scope["method"] == "HEAD"
        await super().__call__(scope, receive, send if is_head else _CheckedBody(send, self._archive, self._database))


def answer_consumer(request: Request, services: Services, archive: StoredArchive) -> Response:
    """A stored zip for a consumer: its bytes, or where it lies if a consumer on this host, with the token, asks."""
    is_ours = request.state.caller.owner is None and request.client is not None and is_loopback(request.client.host)
    if is_ours and request.headers.get(AS_HEADER) == AS_PATH:
        return Response(headers=place_headers(services.store.path(archive.key), archive.sha256))
    return ZipResponse(services, archive)


class _CheckedBody:
    """Passes an answer on, and of a whole zip the last piece only if all of them are what was stored.

    Without it the server cuts the connection, so whoever counts bytes never has all of a damaged zip.
    """

    def __init__(self, send: Send, archive: StoredArchive, database: Database) -> None:
        self._send = send
        self._database = database
        self._archive = archive
        self._digest = hashlib.sha256()
        self._is_whole = False
        self._held = b""

    async def __call__(self, message: Message) -> None:
        """Pass a message on, or hold it back until the next one."""
        if message["type"] == "http.response.start":
            self._is_whole = message["status"] == HTTPStatus.OK
        if message["type"] != "http.response.body" or not self._is_whole:
            await self._send(message)
            return
        if piece := message.get("body", b""):
            await run_in_threadpool(self._digest.update, piece)
            if self._held:
                await self._send({"type": "http.response.body", "body": self._held, "more_body": True})
            self._held = piece
        if message.get("more_body", False):
            return
        if self._digest.hexdigest() != self._archive.sha256:
            await run_in_threadpool(note_damaged, self._database, self._archive.key)
            return
        await self._send({"type": "http.response.body", "body": self._held, "more_body": False})


class Client:
    """Whether somebody waits for an answer."""

    is_gone = False


@asynccontextmanager
async def noticed(request: Request, watcher: Watcher) -> AsyncIterator[Client]:
    """The client of a request without a body; the watcher is woken as it goes away while the block is open."""
    client = Client()

    async def notice() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        client.is_gone = True
        watcher.wake()

    noticing = asyncio.create_task(notice())
    try:
        yield client
    finally:
        noticing.cancel()


def read_log(logs: TaskLogs, uid: str, fence: int | None) -> Iterator[bytes]:
    """The log as written so far."""
    return logs.read(uid, fence) if fence is not None else iter(())


async def follow_log(services: Services, uid: str, caller: Caller) -> AsyncIterator[bytes]:
    """The log as it grows, until the task ends, or the caller's key does.

    The log of a new attempt follows that of the old one. A line that is being written anew is sent in its frames, each
    of which replaces the last one on a terminal.
    """
    fence: int | None = None
    position = 0
    line = b""
    async with services.watch.watch(uid) as watcher:
        while True:
            newest, status = await run_in_threadpool(find_log, services.database, uid, caller)
            if newest != fence:
                fence, position = newest, 0
            while fence is not None:
                chunk, position = await run_in_threadpool(services.logs.read_at, uid, fence, position)
                if not chunk:
                    break
                yield _redraw(line, b"") + chunk
                line = b""
            shown, line = line, b""
            if fence is not None and not status.is_terminal:
                line = await run_in_threadpool(services.logs.line, uid, fence)
            if line != shown:
                yield _redraw(shown, line)
            if status.is_terminal or await run_in_threadpool(services.ended_keys.holds, caller):
                return
            await watcher.changed(_FOLLOW_S)


def _redraw(old: bytes, new: bytes) -> bytes:
    """What turns a line of a terminal into another one, by carriage returns and spaces alone."""
    if old == new:
        return b""
    # Counted in characters: spaces for each byte might wrap the line.
    old_width, new_width = (len(line.decode(errors="replace")) for line in (old, new))
    return b"\r" + new + b" " * (old_width - new_width) + (b"" if new else b"\r")


def _base64_of_hex(text: str) -> str:
    return b64encode(bytes.fromhex(text)).decode()
