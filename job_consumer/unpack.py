"""Unpacks an archive into a folder. The only module in which names that a user chose become files of this host."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import InvalidArchive
from contract.zip_rules import ArchiveDirectory, ArchiveEntry, check_archive, find_clashes, read_entry
from job_consumer.descriptors import new_file, open_beneath, open_folder

_BLOCK_BYTES = 4096
"""What a small file, or a folder, takes of the disk."""


def unpack_archive(
    zip_path: Path,
    target: Path,
    *,
    max_unpacked_bytes: int,
    max_entries: int,
    make_room: Callable[[int], None],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Write every entry of a zip below `target`, an empty folder: folders 0755, files 0644, executables 0755.

    `make_room` is called with the bytes of disk that it will take, before the first is written, and `check` while it
    is written; what they raise ends it. Raises `InvalidArchive` for a fault of the zip and `OSError` for one of this
    host, such as a full disk. `target` may then be partly filled; whoever made it removes it.
    """
    # One open file for both steps, so that what is unpacked is what was checked.
    with zip_path.open("rb") as file, open_folder(target) as target_fd:
        directory = check_archive(file, max_unpacked_bytes=max_unpacked_bytes, max_entries=max_entries)
        make_room(directory.total_size + _BLOCK_BYTES * len(directory.entries))
        for entry in directory.entries:
            chunks = _checked(read_entry(file, entry), check)
            if entry.is_dir:
                with open_beneath(target_fd, entry.name.split("/"), make=True):
                    _expect_nothing(chunks)
            else:
                *parents, name = entry.name.split("/")
                with open_beneath(target_fd, parents, make=True) as parent_fd, _told_apart(directory):
                    _write_file(parent_fd, name, entry, chunks)


def _checked(chunks: Iterator[bytes], check: Callable[[], None]) -> Iterator[bytes]:
    check()
    for chunk in chunks:
        yield chunk
        check()


@contextmanager
def _told_apart(directory: ArchiveDirectory) -> Iterator[None]:
    """A file that is there already is another entry's, where this host's file system ignores case and names do not."""
    try:
        yield
    except FileExistsError as error:
        clash = next(find_clashes((entry.name, entry.is_dir) for entry in directory.entries), None)
        if clash is None:
            raise
        raise InvalidArchive(f"entries {clash}, as on the host of this consumer. Rename one of them.") from error


def _expect_nothing(chunks: Iterator[bytes]) -> None:
    # A folder declares no bytes, so any chunk raises; reading to the end checks its (empty) data like a file's.
    for _ in chunks:
        pass


def _write_file(parent_fd: int, name: str, entry: ArchiveEntry, chunks: Iterator[bytes]) -> None:
    with new_file(name, dir_fd=parent_fd) as descriptor:
        for chunk in chunks:
            write_all(descriptor, chunk)
        # The umask must not decide whether the run, which is another user, may read its input.
        os.fchmod(descriptor, 0o755 if entry.executable else 0o644)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`. On a full disk `os.write` first writes only a part; the next call raises."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
