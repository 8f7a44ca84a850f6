"""Fetches a file whole or not at all: resumed after a cut, checked against its hash, renamed into place at the end."""

import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import httpx

from inference_client.connection import Connection
from inference_client.errors import DamagedDownload, ServiceUnavailable, UnusableInput
from inference_client.pack import OnProgress
from inference_client.unpack import unpack_zip

OnWarnings = Callable[[int], None]
"""Called with how many warnings the task has whose output was fetched, if it has any."""
RESUMES = 5
WARNINGS_HEADER = "X-Task-Warnings"
_SHA256 = r"[0-9a-f]{64}"


def download(
    connection: Connection,
    path: str,
    target: Path,
    on_progress: OnProgress | None = None,
    on_warnings: OnWarnings | None = None,
) -> Path:
    """Fetch `path` to `target`, replacing what is there, and return `target`.

    A cut connection is resumed up to `RESUMES` times. Raises the server's errors, `ServiceUnavailable` if it was cut
    more often, and `DamagedDownload` if the bytes are not those the `ETag` promises; in each case no file is left.
    """
    check_target(target)
    partial = target.with_name(f".infer-{secrets.token_hex(8)}.part")
    try:
        with partial.open("xb") as file:
            state = _Download(file)
            _receive_all(connection, path, state, on_progress)
            state.check()
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        _sync_folder(target.parent)
    finally:
        partial.unlink(missing_ok=True)
    if on_warnings is not None and state.warning_count:
        on_warnings(state.warning_count)
    return target


def download_unpacked(
    connection: Connection,
    path: str,
    folder: Path,
    on_progress: OnProgress | None = None,
    on_warnings: OnWarnings | None = None,
) -> Path:
    """Fetch the zip `path` and unpack it into `folder`, which is made if needed. Raises as `unpack_zip`, too."""
    if folder.is_file():
        raise UnusableInput(f"{folder} is a file; an output is unpacked into a folder, which need not exist")
    check_target(folder / "output.zip" if folder.is_dir() else folder)
    # Next to the folder: on the same disk, with nothing half-made inside the folder.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".infer-") as scratch:
        unpack_zip(download(connection, path, Path(scratch) / "output.zip", on_progress, on_warnings), folder)
    return folder


def check_target(target: Path) -> None:
    """Raise `UnusableInput` if nothing can be stored under this name."""
    if target.is_dir():
        raise UnusableInput(f"{target} is a folder")
    if not target.parent.is_dir():
        raise UnusableInput(f"the folder {target.parent} does not exist")
    if not os.access(target.parent, os.W_OK):
        raise UnusableInput(f"the folder {target.parent} cannot be written to")


@dataclass
class _Download:
    """What has arrived so far: `file`, `size_bytes` and `digest` always agree."""

    file: BinaryIO
    etag: str = ""
    size_bytes: int = 0
    warning_count: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def add(self, chunk: bytes) -> None:
        self.file.write(chunk)
        self.digest.update(chunk)
        self.size_bytes += len(chunk)

    def restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def range_headers(self) -> dict[str, str]:
        # If-Range takes strong tags only; with a weak one the download starts over.
        if not self.size_bytes or not self.etag.startswith('"'):
            return {}
        return {"Range": f"bytes={self.size_bytes}-", "If-Range": self.etag}

    def check(self) -> None:
        promised = self.etag.removeprefix("W/").strip('"')
        if not re.fullmatch(_SHA256, promised):
            raise DamagedDownload("the server sent no sha256 in the ETag, so the output cannot be checked")
        if promised != self.digest.hexdigest():
            raise DamagedDownload(
                f"the output arrived damaged and was thrown away: its sha256 is {self.digest.hexdigest()}, "
                f"not {promised}"
            )


def _receive_all(connection: Connection, path: str, state: _Download, on_progress: OnProgress | None) -> None:
    failures = 0
    while True:
        try:
            # identity: a proxy that compresses would change the bytes that were hashed.
            headers = {"Accept-Encoding": "identity", **state.range_headers()}
            with connection.open("GET", path, headers=headers) as response:
                _receive(response, state, on_progress)
            return
        except ServiceUnavailable as error:
            failures += 1
            connection.pause_or_raise(error, failures, tries=RESUMES + 1)


def _receive(response: httpx.Response, state: _Download, on_progress: OnProgress | None) -> None:
    etag = response.headers.get("ETag", "")
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        state.restart()
        state.etag = etag
    elif not _continues(response, state, etag):
        state.restart()
        raise ServiceUnavailable("the server sent another part of the output than the one asked for")
    warned = response.headers.get(WARNINGS_HEADER, "")
    state.warning_count = int(warned) if re.fullmatch(r"[0-9]{1,9}", warned) else 0
    length = response.headers.get("Content-Length", "")
    total_bytes = state.size_bytes + int(length) if length.isdecimal() else None
    # Without a chunk size: the library would drop a chunk that a cut left incomplete.
    for chunk in response.iter_raw():
        state.add(chunk)
        if on_progress is not None:
            on_progress(state.size_bytes, total_bytes)


def _continues(response: httpx.Response, state: _Download, etag: str) -> bool:
    starts = response.headers.get("Content-Range", "").startswith(f"bytes {state.size_bytes}-")
    return starts and etag in ("", state.etag) and bool(state.range_headers())


def _sync_folder(folder: Path) -> None:
    # A rename survives a power cut only once its folder is on disk. Windows cannot open a folder.
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
