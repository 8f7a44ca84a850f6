"""The output of containers, one file per attempt, appended while the container runs.

<root>/<uid>-<fence>.log
"""

import os
from pathlib import Path

from contract.errors import Conflict
from kit.disk import DISK_RESERVE_BYTES
from private_api.disk_space import DiskSpace, full_disk_translated

MAX_LOG_BYTES = 16 * 1024**2
"""Output of an attempt beyond this is dropped, and the log says so."""
TAIL_BYTES = 4096
_CUT = b"\n[the log was cut here: it reached its limit]\n"


class TaskLogs:
    """The log folder. Thread-safe per attempt: only its holder appends."""

    def __init__(self, root: Path, *, reserve_bytes: int = DISK_RESERVE_BYTES) -> None:
        """Logs leave `reserve_bytes` of the disk free."""
        self._root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._space = DiskSpace(root, reserve_bytes)

    def append(self, uid: str, fence: int, offset: int, data: bytes) -> int:
        """Write `data` at `offset`. Bytes that are there already are skipped, so a repeated call changes nothing.

        Returns the offset after `data`, as its holder counts. Raises `Conflict` if `offset` would leave a gap, and
        `StorageFull`: what was written by then is kept, so the call can be repeated.
        """
        self._space.check(len(data))
        with full_disk_translated():
            return self._append(uid, fence, offset, data)

    def _append(self, uid: str, fence: int, offset: int, data: bytes) -> int:
        path = self.path(uid, fence)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size >= MAX_LOG_BYTES:
                return offset + len(data)
            if offset > size:
                raise Conflict(f"the log has {size} bytes; a piece at {offset} would leave a gap")
            fresh = data[size - offset :]
            if size + len(fresh) >= MAX_LOG_BYTES:
                fresh = fresh[: MAX_LOG_BYTES - size] + _CUT
            view = memoryview(fresh)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        return offset + len(data)

    def path(self, uid: str, fence: int) -> Path:
        """The file of an attempt's log, which does not exist until something was written."""
        return self._root / f"{uid}-{fence}.log"

    def tail(self, uid: str, fence: int) -> str:
        """The last `TAIL_BYTES` of the log, as text."""
        try:
            with self.path(uid, fence).open("rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL_BYTES))
                return log.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def remove(self, uid: str) -> None:
        """Remove the logs of every attempt of a task."""
        for path in self._root.glob(f"{uid}-*.log"):
            path.unlink(missing_ok=True)
