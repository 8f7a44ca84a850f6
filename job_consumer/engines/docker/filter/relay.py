"""Passes calls on to the Engine: each by a connection of its own, its response byte for byte."""

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any

import h11

from job_consumer.engines.docker.filter.calls import Call, CallRules, Refused
from job_consumer.engines.docker.filter.creation import Allowed, devices_of, judge_creation
from job_consumer.engines.docker.filter.folders import check_folders

logger = logging.getLogger(__name__)

_PIECE_BYTES = 64 * 1024
_HEAD_BYTES = 64 * 1024
_BODY_BYTES = 1024 * 1024
"""More than a container's variables and labels ever take."""
_LOGIN = b"x-registry-auth"


class EngineAway(Exception):
    """The Engine cannot be reached."""


@dataclass(frozen=True)
class FilterOptions:
    """What one filter is told."""

    engine_socket: Path
    work_dir: Path
    """The work directory as this process sees it."""
    work_volume: str | None = None
    """The volume that it lies on; without one the Engine sees it under the same path."""
    network: str | None = None
    guard_image: str | None = None
    publish_address: str | None = None
    runtimes: tuple[str, ...] = ()


class EngineFilter:
    """Serves connections of consumers, one call each."""

    def __init__(self, options: FilterOptions) -> None:
        self._options = options
        self._calls = CallRules(work_volume=options.work_volume, network=options.network)
        self._work_root: PurePosixPath | None = None if options.work_volume else PurePosixPath(options.work_dir)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: what `asyncio.start_unix_server` calls."""
        try:
            await self._serve_call(reader, writer)
        except (OSError, asyncio.IncompleteReadError) as error:
            # Whoever called has gone, or the Engine went in the middle: its response breaks off here as well.
            logger.debug("a call broke off: %r", error)
        finally:
            writer.close()

    async def check(self) -> None:
        """Raises `EngineAway` unless the Engine takes connections."""
        _reader, writer = await self._connect()
        writer.close()

    async def _serve_call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request, body = await _read_request(reader)
            call, body = await self._judge(request, body)
            engine = await self._connect()
        except Refused as error:
            logger.warning("a call was refused: %s", error)
            writer.write(_answer(HTTPStatus.FORBIDDEN, f"refused by the filter before the Docker Engine: {error}"))
        except EngineAway as error:
            writer.write(_answer(HTTPStatus.SERVICE_UNAVAILABLE, f"no Docker Engine answers: {error}"))
        else:
            await _exchange(reader, writer, engine, _head(call, request, body) + body)
        with contextlib.suppress(OSError):
            await writer.drain()

    async def _judge(self, request: h11.Request, body: bytes) -> tuple[Call, bytes]:
        """The call, and the body that goes with it; of all other calls the body is dropped."""
        method, target = request.method.decode(), request.target.decode()
        try:
            call = self._calls.judge(method, target)
            if call.creates:
                allowed = await self._allowed()
                body = judge_creation(body, allowed)
                await self._check_folders(json.loads(body), allowed)
                return call, body
            if call.starts:
                await self._check_start(call.starts)
        except Refused as error:
            raise Refused(f"{method} {target.partition('?')[0]}: {error}") from error
        return call, b""

    async def _check_start(self, name: str) -> None:
        """A folder may have become a link since the container was made."""
        container = await self._ask(f"/containers/{name}/json")
        if container is not None:
            await self._check_folders(container, await self._allowed())

    async def _check_folders(self, container: dict[str, Any], allowed: Allowed) -> None:
        devices = devices_of(container)
        await asyncio.to_thread(check_folders, devices, work_root=allowed.work_root, work_dir=self._options.work_dir)

    async def _allowed(self) -> Allowed:
        if self._work_root is None:
            volume = await self._ask(f"/volumes/{self._options.work_volume}")
            if volume is None:
                raise Refused(f"this Docker Engine has no volume {self._options.work_volume}")
            self._work_root = PurePosixPath(volume["Mountpoint"])
        options = self._options
        return Allowed(self._work_root, options.network, options.guard_image, options.publish_address, options.runtimes)

    async def _ask(self, path: str) -> dict[str, Any] | None:
        """What the Engine answers to a GET of the filter's own; None if there is no such thing."""
        reader, writer = await self._connect()
        try:
            writer.write(f"GET /v1.41{path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        finally:
            writer.close()
        if b" 200 " not in head.partition(b"\r\n")[0]:
            return None
        found: dict[str, Any] = json.loads(body)
        return found

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_unix_connection(self._options.engine_socket)
        except OSError as error:
            raise EngineAway(str(error)) from error


async def _read_request(reader: asyncio.StreamReader) -> tuple[h11.Request, bytes]:
    """The head and the body, whole: bodies are short. Raises `Refused`, `asyncio.IncompleteReadError`."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
    request, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if not (piece := await reader.read(_PIECE_BYTES)):
                    raise asyncio.IncompleteReadError(b"", None)
                connection.receive_data(piece)
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _BODY_BYTES:
                    raise Refused(f"a body has at most {_BODY_BYTES} bytes")
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                return request, body
            else:
                raise asyncio.IncompleteReadError(b"", None)
    except h11.RemoteProtocolError as error:
        raise Refused(f"this is not HTTP: {error}") from error


def _head(call: Call, request: h11.Request, body: bytes) -> bytes:
    """The head that the Engine gets: of the headers that came, nothing but a login for a registry."""
    lines = [f"{request.method.decode()} {call.target} HTTP/1.1".encode(), b"Host: docker", b"Connection: close"]
    if call.is_for_a_registry:
        lines += [b"X-Registry-Auth: " + value for name, value in request.headers if name == _LOGIN]
    if body:
        lines.append(b"Content-Type: application/json")
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", b""])


def _answer(status: HTTPStatus, message: str) -> bytes:
    body = json.dumps({"message": message}).encode()
    head = f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    engine: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    request: bytes,
) -> None:
    """Send the request, and pass its response on until it ends or whoever asked has gone."""
    from_engine, to_engine = engine
    to_engine.write(request)
    ends = {asyncio.create_task(_copy(from_engine, writer)), asyncio.create_task(_wait_until_gone(reader))}
    try:
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        for each in ends:
            each.cancel()
        to_engine.close()
        await asyncio.wait(ends)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE_BYTES):
        writer.write(piece)
        await writer.drain()


async def _wait_until_gone(reader: asyncio.StreamReader) -> None:
    """What still comes is dropped: a connection has one call."""
    while await reader.read(_PIECE_BYTES):
        pass
