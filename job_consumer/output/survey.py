"""Looks at all that a run left in /output, before any of it is read, and decides what is sent.

A link into this host, zipped, would hand the consumer's own files to the user; a FIFO would block the consumer for
ever; a sparse file of 1 TB costs the model nothing. So every file is judged before the first byte of any is read.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from contract.statuses import Reason
from contract.zip_rules import find_clashes, name_fault, quoted
from job_consumer.descriptors import open_beneath, open_file, open_folder
from job_consumer.output.failures import ModelFailed, is_models_fault
from job_consumer.output.links import find_target
from job_consumer.output.names import escape_name

_NAMED_OFFENDERS = 10
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_Identity = tuple[int, int]
"""Device and inode: another file of the same name is another file."""


@dataclass(frozen=True)
class OutputFile:
    """A plain file or a folder that is sent, as it was when it was looked at."""

    path: str
    """What it is called in the zip."""
    source: str
    """Where it lies below /output, without a link in it."""
    is_dir: bool
    size: int
    executable: bool
    modified_s: int
    """Seconds since the epoch."""
    identity: _Identity


@dataclass(frozen=True)
class Survey:
    """What is sent of an output, in a fixed order, and what its owner should know of the rest."""

    files: list[OutputFile]
    warnings: list[str]


def survey_output(folder: Path, *, max_bytes: int, max_entries: int, strict: bool = False) -> Survey:
    """Look at every file and folder below `folder`.

    Links that stay inside are sent as copies, names that do not travel as escaped ones, and what cannot be sent is
    left out; with `strict`, each of these refuses the whole output. Raises `ModelFailed` (`output_rejected`,
    `output_too_large`, `no_output`).
    """
    try:
        with open_folder(folder) as root_fd:
            walk = _Walk(root_fd, (str(folder), "/output"), max_bytes, max_entries, strict=strict)
            walk.visit_all("", "", frozenset())
    except OSError as error:
        if not is_models_fault(error):
            raise
        raise ModelFailed(Reason.OUTPUT_REJECTED, "/output itself was removed or locked.") from error
    return walk.conclude()


class _Walk:
    """Collects files, and what is wrong with others, until a budget is spent."""

    def __init__(self, root_fd: int, roots: tuple[str, ...], max_bytes: int, max_entries: int, *, strict: bool) -> None:
        self._root_fd = root_fd
        self._roots = roots
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._strict = strict
        self._entries = 0
        self._bytes = 0
        self._files: list[OutputFile] = []
        self._left_out: list[tuple[str, str]] = []
        """Path below /output, and why."""
        self._renamed: list[str] = []
        self._hard_links: dict[_Identity, set[str]] = defaultdict(set)
        self._names: dict[_Identity, int] = {}
        """How many names a file with several has, on the whole file system."""

    def visit_all(self, source: str, path: str, around: frozenset[_Identity]) -> None:
        """Everything in the folder at `source`, which is called `path` in the zip and lies in the folders `around`."""
        # Recursion is bounded: `name_fault` refuses what lies too deep, and no link leads to a folder around it.
        with self._folder(source) as folder_fd:
            around |= {_identity(os.fstat(folder_fd))}
            names = self._list(folder_fd)
        sent = _SentNames(path, names)
        for name in names:
            try:
                self._visit(source + name, name, sent, around)
            except OSError as error:
                if not is_models_fault(error):
                    raise
                self._leave_out(source + name, os.strerror(error.errno or 0))

    def _list(self, folder_fd: int) -> list[str]:
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

    def _visit(self, source: str, name: str, sent: "_SentNames", around: frozenset[_Identity]) -> None:
        where, status = source, self._status(source)
        if stat.S_ISLNK(status.st_mode) and not self._strict:
            target = find_target(self._root_fd, source, self._roots)
            if target is None:
                self._leave_out(source, "a symbolic link that leads out of /output")
                return
            where, status = target.path, target.status
            if _identity(status) in around:
                self._leave_out(source, "a symbolic link to a folder that it lies in")
                return
        path, fault_of_name = sent.path_of(name)
        if fault := _kind_fault(status, strict=self._strict) or (fault_of_name if self._strict else name_fault(path)):
            self._leave_out(source, fault)
            return
        if fault_of_name:
            self._renamed.append(f"{quoted(source)} was sent as {quoted(path)}: {fault_of_name}")
        if stat.S_ISDIR(status.st_mode):
            self._files.append(_describe(path, where, status))
            self.visit_all(f"{where}/", f"{path}/", around)
        else:
            self._take(path, where, status)

    def _take(self, path: str, where: str, status: os.stat_result) -> None:
        self._spend(status.st_size)
        with self._file(where):
            self._files.append(_describe(path, where, status))
        if status.st_nlink > 1:
            self._hard_links[_identity(status)].add(where)
            self._names[_identity(status)] = status.st_nlink

    def _spend(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._max_bytes:
            raise ModelFailed(
                Reason.OUTPUT_TOO_LARGE,
                f"/output holds {self._bytes} bytes or more; at most {self._max_bytes} are accepted. Holes in sparse "
                "files and copies of what links lead to count.",
            )

    @contextmanager
    def _folder(self, source: str) -> Iterator[int]:
        with open_beneath(self._root_fd, [part for part in source.split("/") if part]) as folder_fd:
            yield folder_fd

    @contextmanager
    def _file(self, source: str) -> Iterator[int]:
        parents, _, name = source.rpartition("/")
        with self._folder(parents) as folder_fd, open_file(name, dir_fd=folder_fd) as descriptor:
            yield descriptor

    def _status(self, source: str) -> os.stat_result:
        parents, _, name = source.rpartition("/")
        with self._folder(parents) as folder_fd:
            return os.stat(name, dir_fd=folder_fd, follow_symlinks=False)

    def _leave_out(self, source: str, fault: str) -> None:
        self._left_out.append((source, fault))

    def conclude(self) -> Survey:
        self._drop_foreign_hard_links()
        clashes = list(find_clashes((file.path, file.is_dir) for file in self._files))
        is_empty = all(file.is_dir for file in self._files)
        offenders = [f"{quoted(source)} ({fault})" for source, fault in self._left_out]
        if self._strict:
            offenders += clashes[:1]
        if offenders and (self._strict or is_empty):
            more = len(offenders) - _NAMED_OFFENDERS
            listed = "; ".join(offenders[:_NAMED_OFFENDERS]) + (f"; and {more} more" if more > 0 else "")
            raise ModelFailed(Reason.OUTPUT_REJECTED, f"/output holds what cannot be sent: {listed}.")
        if is_empty:
            raise ModelFailed(Reason.NO_OUTPUT, "The model ended without writing a file to /output.")
        left_out = [f"{quoted(source)} was left out: {fault}" for source, fault in self._left_out]
        return Survey(self._files, [*left_out, *self._renamed, *clashes])

    def _drop_foreign_hard_links(self) -> None:
        """A file that has a name outside of /output, too, may be anybody's."""
        foreign = {identity for identity, names in self._hard_links.items() if len(names) < self._names[identity]}
        for file in (file for file in self._files if file.identity in foreign):
            self._leave_out(file.source, "a hard link to a file outside of /output")
        self._files = [file for file in self._files if file.identity not in foreign]


class _SentNames:
    """The names that the files of one folder are sent by."""

    def __init__(self, path: str, names: list[str]) -> None:
        """`path` is the folder's in the zip, with a slash at its end; empty for /output itself."""
        self._path = path
        self._taken = {name for name in names if not name_fault(path + name)}

    def path_of(self, name: str) -> tuple[str, str | None]:
        """The path in the zip, and why it is not the file's own."""
        fault = name_fault(self._path + name)
        if not fault:
            return self._path + name, None
        escaped = candidate = escape_name(name, is_first=not self._path)
        number = 1
        while candidate in self._taken:
            number += 1
            candidate = f"{escaped}~{number}"
        self._taken.add(candidate)
        return self._path + candidate, fault


def _kind_fault(status: os.stat_result, *, strict: bool) -> str | None:
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        return _KINDS.get(stat.S_IFMT(status.st_mode), "no plain file")
    return "a hard link: write a copy instead" if strict and status.st_nlink != 1 else None


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _describe(path: str, source: str, status: os.stat_result) -> OutputFile:
    return OutputFile(
        path=path,
        source=source,
        is_dir=stat.S_ISDIR(status.st_mode),
        size=status.st_size,
        executable=bool(status.st_mode & 0o111),
        modified_s=status.st_mtime_ns // 10**9,
        identity=_identity(status),
    )
