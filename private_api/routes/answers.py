"""Answers that stream: a result zip, a log, a log that is still being written."""

from base64 import b64encode
from collections.abc import AsyncIterator, Iterator

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from private_api.archives import ArchiveStore
from private_api.callers import Caller
from private_api.services import Services
from private_api.task_logs import TaskLogs
from private_api.tasks.read import Output, find_log

_CHUNK_BYTES = 1024**2
_FOLLOW_S = 1.0
"""Between two looks at a growing log."""


class ZipResponse(FileResponse):
    """A result zip; its ETag is the sha256, so a range can be resumed against the same bytes only."""

    chunk_size = _CHUNK_BYTES

    def __init__(self, store: ArchiveStore, output: Output, if_none_match: str | None = None) -> None:
        etag = f'"{output.sha256}"'
        self._is_known = if_none_match is not None and etag in if_none_match
        super().__init__(
            store.path(output.key),
            media_type="application/zip",
            filename="output.zip",
            headers={
                "etag": etag,
                "repr-digest": f"sha-256=:{_base64_of_hex(output.sha256)}:",
                "cache-control": "private, no-transform",
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all, one range, or 304."""
        if self._is_known:
            await Response(status_code=304, headers={"etag": self.headers["etag"]})(scope, receive, send)
            return
        if "," in Request(scope).headers.get("range", ""):
            # Many ranges would let a small request cost much work; the whole file is a correct answer to them.
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"range"]}
        await super().__call__(scope, receive, send)


def read_log(logs: TaskLogs, uid: str, fence: int | None) -> Iterator[bytes]:
    """The log as far as it is written."""
    if fence is None or not logs.path(uid, fence).exists():
        return
    with logs.path(uid, fence).open("rb") as log:
        while chunk := log.read(_CHUNK_BYTES):
            yield chunk


async def follow_log(services: Services, uid: str, caller: Caller) -> AsyncIterator[bytes]:
    """The log as it grows, until the task ends; a new attempt goes on after the old one's lines."""
    fence: int | None = None
    position = 0
    async with services.watch.watch(uid) as watcher:
        while True:
            newest, status = await run_in_threadpool(find_log, services.database, uid, caller)
            if newest != fence:
                fence, position = newest, 0
            while fence is not None and (
                chunk := await run_in_threadpool(_read_at, services.logs, uid, fence, position)
            ):
                position += len(chunk)
                yield chunk
            if status.is_terminal:
                return
            await watcher.changed(_FOLLOW_S)


def _read_at(logs: TaskLogs, uid: str, fence: int, position: int) -> bytes:
    try:
        with logs.path(uid, fence).open("rb") as log:
            log.seek(position)
            return log.read(_CHUNK_BYTES)
    except FileNotFoundError:
        return b""


def _base64_of_hex(text: str) -> str:
    return b64encode(bytes.fromhex(text)).decode()
