"""Turns what the user names into a zip that is made while it is sent: bounded memory, no temporary file.

Rules: a single folder gives its content, names relative to it; several paths keep their own names; a single `.zip` is
sent as it is. Links inside a folder are refused, because the model would see something else than the user does; a
path that the user names may itself be a link. The same files give the same bytes, so a cut upload can be repeated.
Nothing is compressed: most inputs are already, a local network is faster than deflate, and files of mostly zeros would
look like a zip bomb. Who needs it smaller sends a `.zip` of their own.
"""

import stat
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.zip_rules import find_clash, name_fault, quoted
from inference_client.errors import UnusableInput

CHUNK_BYTES = 256 * 1024
OnProgress = Callable[[int, int | None], None]
"""Called with the bytes done and the bytes in all, where those are known."""


@dataclass(frozen=True)
class Member:
    """One entry of the zip, as it was when the selection was made. A folder has no source."""

    name: str
    source: Path | None
    size_bytes: int
    mode: int
    mtime: float


@dataclass(frozen=True)
class Selection:
    """What will be sent: either `ready_zip` as it is, or `members` to be zipped."""

    total_bytes: int
    """Bytes to be read from the user's files; progress counts these."""
    members: tuple[Member, ...] = ()
    ready_zip: Path | None = None

    @property
    def content_length(self) -> int | None:
        """Bytes on the wire, where they are known before the zip is made."""
        return None if self.ready_zip is None else self.total_bytes

    def chunks(self, on_progress: OnProgress | None = None) -> Iterator[bytes]:
        """The zip's bytes; may be asked for again. Raises `UnusableInput` if a file changed since it was selected."""
        source = _zip_members(self.members) if self.ready_zip is None else _read_ready(self.ready_zip, self.total_bytes)
        done = 0
        for chunk, read_bytes in source:
            done += read_bytes
            if on_progress is not None:
                on_progress(done, self.total_bytes)
            if chunk:
                yield chunk


def select(paths: Sequence[Path]) -> Selection:
    """Look at `paths` and decide on the zip's entries. Raises `UnusableInput` naming the path and the reason."""
    if not paths:
        raise UnusableInput("nothing was named to be sent")
    for path in paths:
        if not path.exists():
            raise UnusableInput(f"{path} does not exist")
    first = paths[0]
    if len(paths) == 1 and first.is_file() and first.suffix.lower() == ".zip":
        return select_zip(first)
    if len(paths) == 1 and first.is_dir():
        members = list(_walk(first, ""))
    else:
        members = [member for path in paths for member in _named(path)]
    if all(member.source is None for member in members):
        raise UnusableInput(f"{', '.join(map(str, paths))} holds no files")
    _refuse_bad_names(members)
    return Selection(sum(member.size_bytes for member in members), tuple(members))


def select_zip(path: Path) -> Selection:
    """A zip to be sent as it is. Raises `UnusableInput` if it is none."""
    if not zipfile.is_zipfile(path):
        raise UnusableInput(f"{path} is not a zip file")
    return Selection(path.stat().st_size, ready_zip=path)


def _named(path: Path) -> Iterator[Member]:
    # resolve: `.` and `..` have a name only in their full form.
    name = path.name or path.resolve().name
    if name == "..":
        name = path.resolve().name
    if path.is_dir():
        yield _folder(path, name)
        yield from _walk(path, f"{name}/")
    else:
        yield _file(path, name)


def _walk(folder: Path, prefix: str) -> Iterator[Member]:
    # Sorted: the order of a folder's entries differs between file systems and runs.
    for path in sorted(folder.iterdir()):
        name = prefix + path.name
        if path.is_symlink():
            raise UnusableInput(f"{path} is a link; put the file itself there, or leave it out")
        if path.is_dir():
            yield _folder(path, name)
            yield from _walk(path, f"{name}/")
        else:
            yield _file(path, name)


def _folder(path: Path, name: str) -> Member:
    status = path.stat()
    return Member(f"{name}/", None, 0, status.st_mode, status.st_mtime)


def _file(path: Path, name: str) -> Member:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnusableInput(f"{path} is neither a file nor a folder")
    return Member(name, path, status.st_size, status.st_mode, status.st_mtime)


def _refuse_bad_names(members: Sequence[Member]) -> None:
    # The server would refuse these too, but only after the whole upload.
    names = [(member.name.rstrip("/"), member.source is None) for member in members]
    for name, _ in names:
        if fault := name_fault(name):
            raise UnusableInput(f"{quoted(name)} cannot be sent: {fault}; rename it")
    if clash := find_clash(names):
        raise UnusableInput(f"{clash}; rename one, or send the folder that holds them")


def _read_ready(path: Path, size_bytes: int) -> Iterator[tuple[bytes, int]]:
    left = size_bytes
    with path.open("rb") as file:
        # The length was announced, so exactly so much is sent.
        while chunk := file.read(min(CHUNK_BYTES, left)):
            left -= len(chunk)
            yield chunk, len(chunk)
    if left:
        raise UnusableInput(f"{path} became shorter while it was sent")


class _Sink:
    """Holds what `zipfile` wrote until it is taken. It cannot seek, so entries carry their sizes behind their data."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def write(self, data: bytes) -> int:
        self._pending += data
        return len(data)

    def flush(self) -> None:
        """Part of what `zipfile` calls."""

    def close(self) -> None:
        """Part of what `zipfile` may call; there is nothing to close."""

    def take(self) -> bytes:
        """What was written since the last call."""
        taken = bytes(self._pending)
        self._pending.clear()
        return taken


def _zip_members(members: Sequence[Member]) -> Iterator[tuple[bytes, int]]:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:
        for member in members:
            info = _zip_info(member)
            with archive.open(info, "w") as entry:
                for data in _read_member(member):
                    entry.write(data)
                    yield sink.take(), len(data)
    yield sink.take(), 0


def _zip_info(member: Member) -> zipfile.ZipInfo:
    # A zip knows no time before 1980 or after 2107.
    year, *rest = time.localtime(member.mtime)[:6]
    moment = (year, *rest) if 1980 <= year <= 2107 else (1980, 1, 1, 0, 0, 0)
    info = zipfile.ZipInfo(member.name, moment)  # type: ignore[arg-type]
    # Permissions only: the server refuses setuid bits.
    kind = stat.S_IFDIR if member.source is None else stat.S_IFREG
    info.external_attr = (kind | member.mode & 0o777) << 16
    # zipfile chooses zip64 by this size.
    info.file_size = member.size_bytes
    return info


def _read_member(member: Member) -> Iterator[bytes]:
    if member.source is None:
        return
    size_bytes = 0
    with member.source.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            size_bytes += len(data)
            if size_bytes > member.size_bytes:
                break
            yield data
    if size_bytes != member.size_bytes:
        raise UnusableInput(f"{member.source} changed while it was sent")
