"""Folders and files opened by descriptor, component by component: nothing here follows a link or waits for a FIFO."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
# Opening a FIFO for reading waits for a writer unless it is told not to.
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


@contextmanager
def open_folder(folder: Path | str, *, dir_fd: int | None = None) -> Iterator[int]:
    """A descriptor of a folder; a relative one is looked up in `dir_fd`."""
    with _closing(os.open(folder, _FOLDER, dir_fd=dir_fd)) as descriptor:
        yield descriptor


@contextmanager
def open_file(name: str, *, dir_fd: int) -> Iterator[int]:
    """A descriptor for reading of what `name` is in a folder; the caller checks what that is."""
    with _closing(os.open(name, _OLD_FILE, dir_fd=dir_fd)) as descriptor:
        yield descriptor


@contextmanager
def new_file(name: str, *, dir_fd: int) -> Iterator[int]:
    """A descriptor for writing a file that did not exist, private until the caller says otherwise."""
    with _closing(os.open(name, _NEW_FILE, 0o600, dir_fd=dir_fd)) as descriptor:
        yield descriptor


@contextmanager
def open_beneath(folder_fd: int, components: list[str], *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder at a path below another, missing folders being made (0755) where `make` says so."""
    descriptor = os.dup(folder_fd)
    try:
        for component in components:
            made = make and _make_folder(component, dir_fd=descriptor)
            child = os.open(component, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = child
            if made:
                # The umask must not decide whether a run, which is another user, may look inside.
                os.fchmod(descriptor, 0o755)
        yield descriptor
    finally:
        os.close(descriptor)


def _make_folder(name: str, *, dir_fd: int) -> bool:
    try:
        os.mkdir(name, 0o755, dir_fd=dir_fd)
    except FileExistsError:
        return False
    return True


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
