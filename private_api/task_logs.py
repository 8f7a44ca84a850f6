"""The output of containers, per attempt, appended while the container runs. Of a long one the middle is dropped.

<root>/<uid>-<fence>.log           the beginning
<root>/<uid>-<fence>.end/<start>   the end in pieces, each named by its first byte's place in the whole log
<root>/<uid>-<fence>.line          the line that is being written, as long as the log does not go on
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from contract.errors import Conflict
from kit.disk import DISK_RESERVE_BYTES
from private_api.disk_space import DiskSpace, full_disk_translated

HEAD_BYTES = 12 * 1024**2
END_BYTES = 4 * 1024**2
"""Of a log that is longer than both together, what is between them is dropped, and the log says so."""
TAIL_BYTES = 4096
MAX_LINE_BYTES = 1024
_CHUNK_BYTES = 256 * 1024
_CUT_BYTES = 16 * 1024**2
"""A release before this one cut logs here, and wrote a line at their end."""


class TaskLogs:
    """The log folder. Thread-safe per attempt: only its holder appends."""

    def __init__(self, root: Path, *, reserve_bytes: int = DISK_RESERVE_BYTES) -> None:
        """Logs leave `reserve_bytes` of the disk free."""
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._space = DiskSpace(root, reserve_bytes)

    def append(self, uid: str, fence: int, offset: int, data: bytes) -> int:
        """Write `data` at `offset`. Bytes that are there already are skipped, so a repeated call changes nothing.

        Returns the offset after `data`, as its holder counts. Raises `Conflict` if `offset` would leave a gap, and
        `StorageFull`: what was written by then is kept, so the call can be repeated.
        """
        self._space.check(len(data))
        with full_disk_translated():
            after = self._append(uid, fence, offset, data)
        self._line(uid, fence).unlink(missing_ok=True)
        return after

    def show_line(self, uid: str, fence: int, line: bytes) -> None:
        """Keep the line that is being written until the log goes on; empty for none. Raises `StorageFull`."""
        path = self._line(uid, fence)
        if not line:
            path.unlink(missing_ok=True)
            return
        self._space.check(len(line))
        with full_disk_translated():
            # Readers see the whole of one.
            partial = path.with_suffix(".partial")
            partial.write_bytes(line)
            partial.replace(path)

    def line(self, uid: str, fence: int) -> bytes:
        """The line that is being written; empty for none."""
        try:
            return self._line(uid, fence).read_bytes()
        except FileNotFoundError:
            return b""

    def _append(self, uid: str, fence: int, offset: int, data: bytes) -> int:
        path, end = self.path(uid, fence), self._end(uid, fence)
        head_size = _size(path)
        if head_size > _CUT_BYTES:
            return offset + len(data)
        size = end.size or head_size
        if offset > size:
            raise Conflict(f"the log has {size} bytes; a piece at {offset} would leave a gap")
        fresh = memoryview(data)[size - offset :]
        room = max(0, HEAD_BYTES - size)
        if fresh[:room]:
            _write(path, fresh[:room])
        if fresh[room:]:
            end.append(max(size, head_size + len(fresh[:room])), fresh[room:])
        return offset + len(data)

    def path(self, uid: str, fence: int) -> Path:
        """The file with the beginning of an attempt's log, which does not exist until something was written."""
        return self.root / f"{uid}-{fence}.log"

    def files(self, uid: str, fence: int) -> list[Path]:
        """All files of an attempt's log."""
        return [path for path in (self.path(uid, fence), *self._end(uid, fence).pieces.values()) if path.exists()]

    def read(self, uid: str, fence: int) -> Iterator[bytes]:
        """The log as written so far, with a line where something is missing."""
        position = 0
        while True:
            chunk, position = self.read_at(uid, fence, position)
            if not chunk:
                return
            yield chunk

    def read_at(self, uid: str, fence: int, position: int) -> tuple[bytes, int]:
        """A chunk from `position` on, empty at the end, and the position after it."""
        path, end = self.path(uid, fence), self._end(uid, fence)
        head_size = _size(path)
        try:
            if position < head_size:
                chunk = _read(path, position)
                return chunk, position + len(chunk)
            if position < (begin := end.begin):
                missing = f"\n[{begin - position} bytes of the log are missing here]\n"
                return missing.encode(), begin
            starts = [start for start in end.pieces if start <= position]
            chunk = _read(end.pieces[starts[-1]], position - starts[-1]) if starts else b""
            return chunk, position + len(chunk)
        except FileNotFoundError:
            # Removed meanwhile: the whole log, or a piece that made room for the next one.
            return b"", position

    def tail(self, uid: str, fence: int) -> str:
        """The last `TAIL_BYTES` of the log, as text."""
        text = b""
        for path in reversed(self.files(uid, fence)):
            try:
                text = _read(path, max(0, _size(path) - TAIL_BYTES)) + text
            except FileNotFoundError:
                break
            if len(text) >= TAIL_BYTES:
                break
        return text[-TAIL_BYTES:].decode("utf-8", "replace")

    def remove(self, uid: str, fence: int) -> None:
        """Remove the logs of every attempt of a task, the newest of which has this fence."""
        for each in range(1, fence + 1):
            for path in (self.path(uid, each), self._line(uid, each), self._line(uid, each).with_suffix(".partial")):
                path.unlink(missing_ok=True)
            shutil.rmtree(self._end_folder(uid, each), ignore_errors=True)

    def remove_file(self, name: str) -> None:
        """Remove what `old_names` gave."""
        path = self.root / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def old_names(self, age_s: float) -> Iterator[str]:
        """The names in the folder that were last written at least so long ago; `task_of` says whose each is."""
        before = time.time() - age_s
        with os.scandir(self.root) as found:
            for entry in found:
                with suppress(FileNotFoundError):
                    if entry.stat().st_mtime < before:
                        yield entry.name

    def _line(self, uid: str, fence: int) -> Path:
        return self.root / f"{uid}-{fence}.line"

    def _end(self, uid: str, fence: int) -> "_End":
        return _End(self._end_folder(uid, fence))

    def _end_folder(self, uid: str, fence: int) -> Path:
        return self.root / f"{uid}-{fence}.end"


def task_of(name: str) -> str:
    """The uid of the task that a name in the folder of logs is about."""
    return name.rpartition("-")[0]


class _End:
    """The end of a long log: at least its last `END_BYTES`, in two pieces at most."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = list(folder.iterdir()) if folder.is_dir() else []
        self.pieces = {int(path.name): path for path in sorted(found, key=lambda path: int(path.name))}
        """By the place of their first byte, in order."""

    @property
    def size(self) -> int:
        """How long the whole log is, or 0 without an end."""
        return max((start + _size(path) for start, path in self.pieces.items()), default=0)

    @property
    def begin(self) -> int:
        """Where what is shown begins, or 0 without an end."""
        return max(next(iter(self.pieces), 0), self.size - END_BYTES)

    def append(self, place: int, data: memoryview) -> None:
        """Write `data`, whose first byte has this place in the whole log."""
        self._folder.mkdir(exist_ok=True, mode=0o700)
        while data:
            room = END_BYTES - _size(self.pieces[max(self.pieces)]) if self.pieces else 0
            if room <= 0:
                self.pieces[place], room = self._folder / str(place), END_BYTES
                for start in sorted(self.pieces)[:-2]:
                    self.pieces.pop(start).unlink(missing_ok=True)
            _write(self.pieces[max(self.pieces)], data[:room])
            place, data = place + len(data[:room]), data[room:]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _write(path: Path, data: memoryview) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o600)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def _read(path: Path, place: int) -> bytes:
    with path.open("rb") as log:
        log.seek(place)
        return log.read(_CHUNK_BYTES)
