"""How far a run says it is: in a line `progress 0.42 text` of its log, or in the last line of a file that it writes.

Foreign code wrote both. What is not understood counts as not said.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event

from contract.heartbeats import MAX_PROGRESS_TEXT, Progress
from job_consumer.descriptors import open_file, open_folder
from job_consumer.workspace import PROGRESS_NAME
from kit.threads import SupervisedThread

OnProgress = Callable[[Progress], None]

LOOK_S = 1.0
"""Between two looks at the file."""
_LINE = re.compile(rb"(progress[ \t]+)?([0-9.eE+-]{1,30})(?:[ \t]+(.*))?", re.DOTALL)
_LINE_BYTES = 40 + 4 * MAX_PROGRESS_TEXT
_END_BYTES = 4096
"""Of the file, which may grow with each line, or be written anew."""


def parse_progress(line: bytes, *, needs_word: bool) -> Progress | None:
    """What a line says; with `needs_word` only if it begins with `progress`."""
    found = _LINE.fullmatch(line.strip()[:_LINE_BYTES])
    if found is None or (needs_word and not found[1]):
        return None
    # Also raised for a number that is not between 0 and 1.
    with suppress(ValueError):
        return Progress(fraction=float(found[2]), text=(found[3] or b"").decode(errors="replace"))
    return None


class ProgressLines:
    """Finds what a log says, which comes in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def find(self, piece: bytes) -> Progress | None:
        """What the last line of its kind says that ends in this piece."""
        *lines, rest = (self._rest + piece).replace(b"\r", b"\n").split(b"\n")
        # Enough of a long line to see what it says.
        self._rest = rest[: 2 * _LINE_BYTES]
        found = (parse_progress(line, needs_word=True) for line in reversed(lines) if b"progress" in line)
        return next((progress for progress in found if progress is not None), None)


def read_progress(folder: Path) -> Progress | None:
    """What the last line that can be understood of a run's file says; None without one."""
    # Also raised where it is not a plain file.
    with suppress(OSError), open_folder(folder) as folder_fd, open_file(PROGRESS_NAME, dir_fd=folder_fd) as file:
        end = os.pread(file, _END_BYTES, max(0, os.fstat(file).st_size - _END_BYTES))
        found = (parse_progress(line, needs_word=False) for line in reversed(end.splitlines()))
        return next((progress for progress in found if progress is not None), None)
    return None


class ProgressFile:
    """Looks at a run's file from `start` to `stop`, and tells what is new there from a thread of its own."""

    def __init__(self, folder: Path, on_progress: OnProgress) -> None:
        self._folder = folder
        self._on_progress = on_progress
        self._stopped = Event()
        self._thread = SupervisedThread("progress-file", self._watch, pause_s=LOOK_S, stopped=self._stopped)

    def start(self) -> None:
        """Begin to look; once per object."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _watch(self) -> None:
        told: Progress | None = None
        while not self._stopped.wait(LOOK_S):
            progress = read_progress(self._folder)
            if progress is not None and progress != told:
                told = progress
                self._on_progress(progress)
