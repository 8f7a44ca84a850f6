"""Validates what a run left in /output, before any of it is read.

A link into this host, zipped, would hand the consumer's own files to the user; a FIFO would block the consumer for
ever; a sparse file of 1 TB costs the model nothing. So every file is judged before the first byte of any is read.
"""

import os
import stat
from dataclasses import dataclass
from errno import EACCES, ELOOP, ENOENT, ENOTDIR, ENXIO, EPERM
from itertools import islice
from pathlib import Path

from contract.statuses import Reason
from contract.zip_rules import MAX_DEPTH, find_clash, name_fault, quoted
from job_consumer.descriptors import open_file, open_folder
from job_consumer.output.failures import ModelFailed

_NAMED_OFFENDERS = 10
_MODELS_FAULTS = frozenset({EACCES, ELOOP, ENOENT, ENOTDIR, ENXIO, EPERM})
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True)
class OutputFile:
    """A plain file or a folder below /output, as it was when it was validated."""

    path: str
    is_dir: bool
    size: int
    executable: bool
    modified_s: int
    """Seconds since the epoch."""
    identity: tuple[int, int]
    """Device and inode: another file of the same name is another file."""


def is_models_fault(error: OSError) -> bool:
    """Whether reading /output failed because of what the model left there (a lock, a change), not our disk."""
    return error.errno in _MODELS_FAULTS


def validate_output(folder: Path, *, max_bytes: int, max_entries: int) -> list[OutputFile]:
    """Every file and folder below `folder`, in a fixed order; raises `ModelFailed` unless all are acceptable."""
    validation = _Validation(max_bytes, max_entries)
    try:
        with open_folder(folder) as folder_fd:
            validation.walk(folder_fd, "")
    except OSError as error:
        if not is_models_fault(error):
            raise
        raise ModelFailed(Reason.OUTPUT_REJECTED, "/output itself was removed or locked.") from error
    return validation.conclude()


class _Validation:
    """Collects files and offenders until a budget is spent."""

    def __init__(self, max_bytes: int, max_entries: int) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._entries = 0
        self._bytes = 0
        self._files: list[OutputFile] = []
        self._offenders: list[str] = []

    def walk(self, folder_fd: int, prefix: str) -> None:
        # Recursion is bounded: `name_fault` refuses a folder deeper than MAX_DEPTH.
        for name in self._names(folder_fd):
            path = prefix + name
            try:
                self._visit(folder_fd, name, path)
            except OSError as error:
                if not is_models_fault(error):
                    raise
                self._offenders.append(f"{quoted(path)} ({os.strerror(error.errno or 0)})")

    def _names(self, folder_fd: int) -> list[str]:
        left = self._max_entries - self._entries
        with os.scandir(folder_fd) as found:
            names = [entry.name for entry in islice(found, left + 1)]
        if len(names) > left:
            raise ModelFailed(
                Reason.OUTPUT_TOO_LARGE,
                f"/output holds more than {self._max_entries} files and folders. Write fewer, larger files.",
            )
        self._entries += len(names)
        return sorted(names)

    def _visit(self, folder_fd: int, name: str, path: str) -> None:
        status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
        fault = name_fault(path) or _kind_fault(status)
        if fault:
            self._offenders.append(f"{quoted(path)} ({fault})")
        elif stat.S_ISDIR(status.st_mode):
            self._files.append(_describe(path, status))
            with open_folder(name, dir_fd=folder_fd) as child_fd:
                self.walk(child_fd, path + "/")
        else:
            self._spend(status.st_size)
            with open_file(name, dir_fd=folder_fd):
                self._files.append(_describe(path, status))

    def _spend(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._max_bytes:
            raise ModelFailed(
                Reason.OUTPUT_TOO_LARGE,
                f"/output holds {self._bytes} bytes or more; at most {self._max_bytes} are accepted. Holes in sparse "
                "files count.",
            )

    def conclude(self) -> list[OutputFile]:
        clash = find_clash((file.path, file.is_dir) for file in self._files)
        offenders = self._offenders + ([clash] if clash else [])
        if offenders:
            more = len(offenders) - _NAMED_OFFENDERS
            listed = "; ".join(offenders[:_NAMED_OFFENDERS]) + (f"; and {more} more" if more > 0 else "")
            raise ModelFailed(Reason.OUTPUT_REJECTED, f"/output holds what cannot be sent: {listed}.")
        if all(file.is_dir for file in self._files):
            raise ModelFailed(Reason.NO_OUTPUT, "The model ended without writing a file to /output.")
        return self._files


def _kind_fault(status: os.stat_result) -> str | None:
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        return _KINDS.get(stat.S_IFMT(status.st_mode), "no plain file")
    return "a hard link: write a copy instead" if status.st_nlink != 1 else None


def _describe(path: str, status: os.stat_result) -> OutputFile:
    return OutputFile(
        path=path,
        is_dir=stat.S_ISDIR(status.st_mode),
        size=status.st_size,
        executable=bool(status.st_mode & 0o111),
        modified_s=status.st_mtime_ns // 10**9,
        identity=(status.st_dev, status.st_ino),
    )


def measure_folder(folder: Path) -> int:
    """The bytes of all plain files below `folder`, holes included, while a run may still change it.

    What vanishes meanwhile, or cannot be read, is not counted. Raises `ModelFailed` for folders nested deeper than
    `validate_output` accepts, because nothing below them could be counted.
    """
    try:
        with open_folder(folder) as folder_fd:
            return _measure(folder_fd, 0)
    except OSError as error:
        if not is_models_fault(error):
            raise
        return 0


def _measure(folder_fd: int, depth: int) -> int:
    if depth > MAX_DEPTH:
        raise ModelFailed(Reason.OUTPUT_REJECTED, f"Folders in /output are nested more than {MAX_DEPTH} deep.")
    total = 0
    with os.scandir(folder_fd) as found:
        for entry in found:
            try:
                if entry.is_dir(follow_symlinks=False):
                    with open_folder(entry.name, dir_fd=folder_fd) as child_fd:
                        total += _measure(child_fd, depth + 1)
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
            except OSError as error:
                if not is_models_fault(error):
                    raise
    return total
