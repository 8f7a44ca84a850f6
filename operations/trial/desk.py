"""The private API's side of one attempt, on this machine: it gives out two zips and keeps what is reported."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from contract.errors import InvalidRequest, RouteNotFound
from contract.heartbeats import Heartbeat, HeartbeatReply
from contract.private_client import PrivateClient
from contract.schemas import ArchiveView, Commit, Failure, Release, Settled
from contract.statuses import Status
from private_api.task_logs import TaskLogs
from private_api.tasks.limits import phase_limit

OnLog = Callable[[bytes], None]


@dataclass(frozen=True)
class Zips:
    """What an attempt fetches: the input's zip, and the model's if it has one."""

    input: Path
    model: Path | None


class Desk(PrivateClient):
    """Answers the calls of one attempt without any server; how the attempt ended is in `ending` afterwards."""

    def __init__(self, zips: Zips, folder: Path, time_limit_s: int, on_log: OnLog) -> None:
        """`folder` takes the log and the output's zip. `on_log` gets what a server would keep, as it comes."""
        self.is_refused = False
        self.ending: Commit | Failure | Release | None = None
        self.output_zip = folder / "output.zip"
        self._zips = zips
        self._logs = TaskLogs(folder / "logs", reserve_bytes=0)
        self._time_limit_s = time_limit_s
        self._on_log = on_log
        self._shown_bytes = 0

    def close(self) -> None:
        """There is no connection to close."""

    def tail(self, uid: str, fence: int) -> str:
        """The end of the log, as a failed task shows it."""
        return self._logs.tail(uid, fence)

    def read_log(self, uid: str, fence: int) -> str:
        """The log as a server would keep it."""
        return b"".join(self._logs.read(uid, fence)).decode(errors="replace")

    def beat(self, uid: str, fence: int, beat: Heartbeat) -> HeartbeatReply:
        """Nobody cancels a trial."""
        return HeartbeatReply(cancel=False, seconds_left=phase_limit(beat.phase, self._time_limit_s).total_seconds())

    def wait_for_cancel(self, uid: str, fence: int, wait_s: float) -> bool:
        """Nobody cancels a trial, so there is nothing to wait for. Raises `RouteNotFound`."""
        raise RouteNotFound

    def fetch_input(self, uid: str, fence: int, target: Path) -> str:
        """Another name for the same file: the attempt removes it once it is unpacked."""
        return _link(self._zips.input, target)

    def fetch_model(self, uid: str, fence: int, target: Path) -> str:
        """As for the input."""
        if self._zips.model is None:
            raise InvalidRequest("this model has no archive")
        return _link(self._zips.model, target)

    def append_log(self, uid: str, fence: int, offset: int, piece: bytes) -> int:
        """Keeps the piece as a server does, and shows what is new of it."""
        after = self._logs.append(uid, fence, offset, piece)
        while True:
            fresh, self._shown_bytes = self._logs.read_at(uid, fence, self._shown_bytes)
            if not fresh:
                return after
            self._on_log(fresh)

    def show_log_line(self, uid: str, fence: int, line: bytes) -> None:
        """A trial shows whole lines."""

    def upload_output(self, uid: str, fence: int, pieces: Iterable[bytes]) -> ArchiveView:
        """Stores the zip in the trial's folder."""
        digest, size_bytes = hashlib.sha256(), 0
        with self.output_zip.open("wb") as file:
            for piece in pieces:
                file.write(piece)
                digest.update(piece)
                size_bytes += len(piece)
        return ArchiveView(sha256=digest.hexdigest(), size_bytes=size_bytes)

    def commit(self, uid: str, fence: int, commit: Commit) -> Settled:
        self.ending = commit
        return Settled(status=Status.FINISHED)

    def fail(self, uid: str, fence: int, failure: Failure) -> Settled:
        self.ending = failure
        return Settled(status=Status.FAILED)

    def release(self, uid: str, fence: int, release: Release) -> Settled:
        """A server would queue the task again; a trial is over."""
        self.ending = release
        return Settled(status=Status.QUEUED)


def _link(source: Path, target: Path) -> str:
    target.unlink(missing_ok=True)
    os.link(source, target)
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
