"""Fetches archives from the private API: hashed as they arrive, or as a link where both share a file system.

Over HTTP an archive is read by the standard library's client into one buffer, which takes less than a tenth of the CPU
that httpx takes. On its own host the private API is asked where the archive lies instead (`AS_HEADER`); it tells only
who shows the service token and calls over the loopback. Whoever cannot link what it names fetches the bytes.
"""

import hashlib
import os
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote, unquote

import httpx

AS_HEADER = "x-archive-as"
AS_PATH = "path"
"""What `AS_HEADER` says to ask for the place of an archive."""
PATH_HEADER = "x-archive-path"
"""Where the archive lies on the private API's host; `ETag` has its sha256, as for the archive itself."""
_PIECE_BYTES = 1024**2


class FetchRefused(Exception):
    """The private API answered something else than an archive: `answer`."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer


class FetchCut(Exception):
    """The private API cannot be reached, or the archive broke off."""


class ArchiveSource:
    """Where the archives of one private API are fetched from. Thread-safe: every fetch has its own connection."""

    def __init__(self, url: str, secret: str, *, connect_s: float, silence_s: float) -> None:
        """`silence_s` limits the pauses of a transfer."""
        self._url = httpx.URL(url)
        self._secret = secret
        self._connect_s = connect_s
        self._silence_s = silence_s
        self._may_link = is_loopback(self._url.host)
        self._tls = httpx.create_ssl_context(trust_env=False) if self._url.scheme == "https" else None

    def fetch(self, path: str, target: Path) -> str:
        """Make `target` the archive at `path`, replacing a file that is there. Returns the sha256 of its bytes.

        `target` may be a link to the archive itself: it is to be read and removed, never written to. Raises
        `FetchRefused`, `FetchCut`, and `OSError` for a fault of this host, such as a full disk.
        """
        # Never opened where it is: it may be a link that an earlier try made.
        target.unlink(missing_ok=True)
        if self._may_link:
            with self._asked(path, {AS_HEADER: AS_PATH}) as answer:
                place = answer.getheader(PATH_HEADER)
                if place is None:
                    return _receive(answer, target)
                if sha256 := _link(Path(unquote(place)), target, answer.getheader("ETag", "").strip('"')):
                    return sha256
        with self._asked(path, {}) as answer:
            return _receive(answer, target)

    @contextmanager
    def _asked(self, path: str, headers: dict[str, str]) -> Iterator[HTTPResponse]:
        with closing(self._connect()) as connection:
            headers = {"Authorization": f"Bearer {self._secret}", **headers}
            yield _ask(connection, self._url.path.rstrip("/") + path, headers)

    def _connect(self) -> HTTPConnection:
        host, port = self._url.host, self._url.port
        if self._tls is not None:
            return self._opened(HTTPSConnection(host, port, timeout=self._connect_s, context=self._tls))
        return self._opened(HTTPConnection(host, port, timeout=self._connect_s))

    def _opened(self, connection: HTTPConnection) -> HTTPConnection:
        try:
            connection.connect()
        except OSError as error:
            raise _cut(error) from error
        connection.sock.settimeout(self._silence_s)
        return connection


def is_loopback(host: str) -> bool:
    """Whether this host reaches itself by the name or the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def place_headers(archive: Path, sha256: str) -> dict[str, str]:
    """What the private API answers to the question where an archive lies."""
    return {PATH_HEADER: quote(str(archive.absolute())), "etag": f'"{sha256}"'}


def _ask(connection: HTTPConnection, path: str, headers: dict[str, str]) -> HTTPResponse:
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        if answer.status == httpx.codes.OK:
            return answer
        raise FetchRefused(httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read()))
    except (OSError, HTTPException) as error:
        raise _cut(error) from error


def _link(place: Path, target: Path, stored: str) -> str | None:
    """The sha256 of the archive, which `target` is a name of now; None if its bytes must be fetched."""
    try:
        os.link(place, target)
    except OSError:
        # Another file system, or another user's files.
        return None
    with target.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() == stored:
            return stored
    # Another file, or a damaged one, which the private API notes when it sends it.
    target.unlink()
    return None


def _receive(answer: HTTPResponse, target: Path) -> str:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE_BYTES))
    with target.open("xb") as file:
        while size := _read(answer, buffer):
            file.write(buffer[:size])
            digest.update(buffer[:size])
    # `readinto` takes a connection that ends too early for the end of the body.
    if answer.length:
        raise FetchCut(f"the archive broke off {answer.length} bytes before its end")
    return digest.hexdigest()


def _read(answer: HTTPResponse, buffer: memoryview) -> int:
    try:
        return answer.readinto(buffer)
    except (OSError, HTTPException, ssl.SSLError) as error:
        raise _cut(error) from error


def _cut(error: Exception) -> FetchCut:
    return FetchCut(f"{type(error).__name__}: {error}")
