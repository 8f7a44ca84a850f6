"""Remembers the tasks that were submitted from this machine, so that people need not copy whole uids.

Without keys, whoever knows a uid may fetch its output: only the user can read the file.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from json import dumps, loads
from pathlib import Path
from typing import IO

MOST_TASKS = 1000
"""How many are remembered; up to as many again until the oldest are dropped."""


@dataclass(frozen=True)
class Submission:
    """One remembered task."""

    server: str
    uid: str
    model: str
    at: str
    """When it was submitted by this machine's clock, as RFC 3339."""
    label: str | None = None


class Submissions:
    """A file with one JSON line per task, the newest last. Several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, server: str, uid: str, model: str, label: str | None = None) -> None:
        """Remember a task. Raises `OSError` if the file cannot be written."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        submission = Submission(server, uid, model, datetime.now(UTC).isoformat(timespec="seconds"), label)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+", encoding="utf-8") as file, _locked(file):
            lines = file.readlines()
            lines.append(dumps(asdict(submission)) + "\n")
            if len(lines) <= 2 * MOST_TASKS:
                file.write(lines[-1])
            else:
                file.truncate(0)
                file.writelines(lines[-MOST_TASKS:])

    def of(self, server: str) -> list[Submission]:
        """The tasks of one server, the newest first. What cannot be read is left out."""
        try:
            with self._path.open(encoding="utf-8", errors="replace") as file, _locked(file):
                lines = file.readlines()
        except OSError:
            return []
        found = [_parse(line) for line in reversed(lines)]
        return [submission for submission in found if submission is not None and submission.server == server]


def _parse(line: str) -> Submission | None:
    try:
        return Submission(**loads(line))
    except (TypeError, ValueError):
        return None


@contextmanager
def _locked(file: IO[str]) -> Iterator[None]:
    """Nobody else reads or writes meanwhile. Without effect on Windows, where one user's commands rarely meet."""
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    fcntl.flock(file, fcntl.LOCK_EX if file.writable() else fcntl.LOCK_SH)
    try:
        yield
    finally:
        # Before the lock ends, not when the file is closed.
        if file.writable():
            file.flush()
        fcntl.flock(file, fcntl.LOCK_UN)
