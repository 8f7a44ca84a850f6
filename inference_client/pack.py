"""Turns what a user names into a zip that is made while it is sent: bounded memory, no temporary file.

A single folder stands for its content, with names relative to it; several paths keep their own names; a single `.zip`
is sent as it is. A mapping says which name each file or folder gets, and may hold the content itself as bytes. Links
inside a folder are refused, because the model would see something other than the user does; a path that the user names
may itself be a link. The same files give the same bytes wherever and whenever they lie, so a cut upload can be repeated
and a model's folder has one sha256: only names, content and "executable" count, which is all that a run sees of them.
Nothing is compressed: most inputs already are, and a local network is faster than deflate. To send less, send a `.zip`.
"""

import io
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from inference_client.errors import UnusableInput
from inference_client.zip_names import find_clash, name_fault, quoted

CHUNK_BYTES = 256 * 1024
_UNIX = 3
OnProgress = Callable[[int, int | None], None]
"""Called with the bytes done so far and the bytes in all, or None if the total is unknown."""


Inputs = str | Path | bytes | Sequence[str | Path] | Mapping[str, bytes | Path]
"""What may be sent: a path or several; names with the file, the folder or the bytes that go under them; bytes, which
are sent as they are if they are a zip, else as a file named `input`. A text is a path.
"""
_NAMELESS = "input"


@dataclass(frozen=True)
class Member:
    """One entry of the zip, as it was when the selection was made. A folder has no source."""

    name: str
    source: Path | bytes | None
    size_bytes: int
    executable: bool = False


@dataclass(frozen=True)
class Selection:
    """What will be sent: either `ready_zip` as it is, or `members` to be zipped."""

    total_bytes: int
    """Bytes to read from the user's files; progress counts these."""
    members: tuple[Member, ...] = ()
    ready_zip: Path | bytes | None = None

    @property
    def content_length(self) -> int | None:
        """Bytes on the wire, or None: those of a zip in the making are not known before it is sent."""
        return None if self.ready_zip is None else self.total_bytes

    def chunks(self, on_progress: OnProgress | None = None) -> Iterator[bytes]:
        """The zip's bytes, from the start at each call. Raises `UnusableInput` if a file changed since `select`."""
        source = _zip_members(self.members) if self.ready_zip is None else _read_ready(self.ready_zip, self.total_bytes)
        done = 0
        for chunk, read_bytes in source:
            done += read_bytes
            if on_progress is not None:
                on_progress(done, self.total_bytes)
            if chunk:
                yield chunk


def select_inputs(inputs: Inputs) -> Selection:
    """Decide on the zip's entries. Raises `UnusableInput` naming what cannot be sent and the reason."""
    if isinstance(inputs, bytes):
        if zipfile.is_zipfile(io.BytesIO(inputs)):
            return Selection(len(inputs), ready_zip=inputs)
        return select_inputs({_NAMELESS: inputs})
    if isinstance(inputs, Mapping):
        return _to_selection(
            [member for name, source in inputs.items() for member in _given(name, source)], "the names"
        )
    if isinstance(inputs, str | Path):
        return select([_to_path(inputs)])
    if not isinstance(inputs, Sequence):
        raise UnusableInput(
            f"a {type(inputs).__name__} cannot be sent; give paths, bytes, or names with bytes or paths"
        )
    return select([_to_path(path) for path in inputs])


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
    return _to_selection(members, ", ".join(map(str, paths)))


def _to_selection(members: Sequence[Member], what: str) -> Selection:
    if all(member.source is None for member in members):
        raise UnusableInput(f"{what} holds no files")
    _refuse_bad_names(members)
    return Selection(sum(member.size_bytes for member in members), tuple(members))


def select_zip(path: Path) -> Selection:
    """A zip to be sent as it is. Raises `UnusableInput` if `path` is not a zip."""
    if not zipfile.is_zipfile(path):
        raise UnusableInput(f"{path} is not a zip file")
    return Selection(path.stat().st_size, ready_zip=path)


def _to_path(given: object) -> Path:
    if isinstance(given, Path):
        return given
    if isinstance(given, str):
        return Path(given).expanduser()
    raise UnusableInput(f"a {type(given).__name__} has no name to be sent under; give it one: {{name: content}}")


def _given(name: object, source: object) -> Iterator[Member]:
    if not isinstance(name, str):
        raise UnusableInput(f"{name!r} is not the name of a file")
    if isinstance(source, bytes):
        yield Member(name, source, len(source))
    elif not isinstance(source, Path):
        raise UnusableInput(
            f"{quoted(name)}: give its content as bytes, or a file as a Path, not a {type(source).__name__}"
        )
    elif not source.exists():
        raise UnusableInput(f"{source} does not exist")
    else:
        yield from _under(source, name)


def _named(path: Path) -> Iterator[Member]:
    # resolve: `.` and `..` have a name only in their full form.
    name = path.name or path.resolve().name
    if name == "..":
        name = path.resolve().name
    yield from _under(path, name)


def _under(path: Path, name: str) -> Iterator[Member]:
    if path.is_dir():
        yield _folder(name)
        yield from _walk(path, f"{name}/")
    else:
        yield _file(path, name)


def _walk(folder: Path, prefix: str) -> Iterator[Member]:
    # Sorted: the order of a folder's entries differs between file systems and runs.
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        name = prefix + path.name
        if path.is_symlink():
            raise UnusableInput(f"{path} is a link; put the file itself there, or leave it out")
        if path.is_dir():
            yield _folder(name)
            yield from _walk(path, f"{name}/")
        else:
            yield _file(path, name)


def _folder(name: str) -> Member:
    return Member(f"{name}/", None, 0)


def _file(path: Path, name: str) -> Member:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnusableInput(f"{path} is neither a file nor a folder")
    return Member(name, path, status.st_size, bool(status.st_mode & stat.S_IXUSR))


def _refuse_bad_names(members: Sequence[Member]) -> None:
    # The server would refuse these as well, but only after the whole upload.
    names = [(member.name.rstrip("/"), member.source is None) for member in members]
    for name, _ in names:
        if fault := name_fault(name):
            raise UnusableInput(f"{quoted(name)} cannot be sent: {fault}; rename it")
    if clash := find_clash(names):
        raise UnusableInput(f"{clash}; rename one, or send the folder that holds them")


def _open(source: Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _name(source: Path | bytes) -> str:
    return "the content" if isinstance(source, bytes) else str(source)


def _read_ready(source: Path | bytes, size_bytes: int) -> Iterator[tuple[bytes, int]]:
    left = size_bytes
    with _open(source) as file:
        # The length was announced: no more than that may be sent.
        while chunk := file.read(min(CHUNK_BYTES, left)):
            left -= len(chunk)
            yield chunk, len(chunk)
    if left:
        raise UnusableInput(f"{_name(source)} became shorter while it was sent")


class _Sink:
    """Holds what `zipfile` wrote until it is taken. It cannot seek, so entries carry their sizes after their data."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def write(self, data: bytes) -> int:
        self._pending += data
        return len(data)

    def flush(self) -> None:
        """Called by `zipfile`; nothing is buffered."""

    def close(self) -> None:
        """`zipfile` may call it; there is nothing to close."""

    def take(self) -> bytes:
        """The bytes written since the last call."""
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
    # Without a time: ZipInfo's own is the earliest that a zip can express.
    info = zipfile.ZipInfo(member.name)
    # Otherwise the system of this machine, and permissions would count only on some.
    info.create_system = _UNIX
    # As the consumer unpacks it, whatever the umask was.
    mode = stat.S_IFDIR | 0o755 if member.source is None else stat.S_IFREG | (0o755 if member.executable else 0o644)
    info.external_attr = mode << 16
    # zipfile chooses zip64 by this size.
    info.file_size = member.size_bytes
    return info


def _read_member(member: Member) -> Iterator[bytes]:
    if member.source is None:
        return
    size_bytes = 0
    with _open(member.source) as file:
        while data := file.read(CHUNK_BYTES):
            size_bytes += len(data)
            if size_bytes > member.size_bytes:
                break
            yield data
    if size_bytes != member.size_bytes:
        raise UnusableInput(f"{_name(member.source)} changed while it was sent")


def zip_headers(selection: Selection) -> Mapping[str, str]:
    """The headers that go with its zip as a body."""
    headers = {"Content-Type": "application/zip"}
    if selection.content_length is not None:
        headers["Content-Length"] = str(selection.content_length)
    return headers
