"""Opens and removes what foreign code may have written, without following a link or waiting for a FIFO."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
# Without O_NONBLOCK, opening a FIFO for reading waits for a writer.
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


@contextmanager
def open_folder(folder: Path | str, *, dir_fd: int | None = None) -> Iterator[int]:
    """A descriptor of a folder; a relative one is looked up in `dir_fd`."""
    with _closing(os.open(folder, _FOLDER, dir_fd=dir_fd)) as descriptor:
        yield descriptor


@contextmanager
def open_file(name: str, *, dir_fd: int) -> Iterator[int]:
    """A descriptor for reading `name` in a folder, whatever it is; the caller checks that."""
    with _closing(os.open(name, _OLD_FILE, dir_fd=dir_fd)) as descriptor:
        yield descriptor


@contextmanager
def new_file(name: str, *, dir_fd: int) -> Iterator[int]:
    """A descriptor for writing a file that did not exist, private until the caller says otherwise."""
    with _closing(os.open(name, _NEW_FILE, 0o600, dir_fd=dir_fd)) as descriptor:
        yield descriptor


@contextmanager
def open_beneath(folder_fd: int, components: list[str], *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder at a path below another; with `make`, missing folders are made (0755)."""
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


def allocated_bytes(root: Path) -> int:
    """What the files below a folder take of its disk, each once however many names it has. Follows no link.

    What vanishes meanwhile or cannot be read is not counted, nor is what is nested absurdly deep.
    """
    total, linked = 0, set()
    # Too deep for the interpreter, or for the number of open files.
    with suppress(RecursionError, OSError):
        for _, _, names, folder_fd in os.fwalk(root):
            for name in names:
                with suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
                    if status.st_nlink > 1 and status.st_ino in linked:
                        continue
                    linked.add(status.st_ino)
                    total += status.st_blocks * 512
    return total


def remove_tree(root: Path) -> None:
    """Remove a folder that foreign code wrote to, locked folders included."""
    shutil.rmtree(root, onerror=_unlock_and_retry)


def _unlock_and_retry(function: Callable[[str], object], path: str, _error: object) -> None:
    """Models may leave folders without write permission; their owner can still unlock them."""
    parent = Path(path).parent
    for locked in (parent, Path(path)):
        if locked.is_dir() and not locked.is_symlink():
            os.chmod(locked, 0o700)  # noqa: PTH101 - follows no link: checked above
    function(path)
