"""What a run may read of the machine: the system's programs and this Python, but nothing of the server or its users."""

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/sys", "/nix", "/gnu")
DEVICES = ("null", "zero", "full", "random", "urandom")
GPU_DEVICES = ("nvidia*", "dri", "kfd", "dxg")
_DEV = Path("/dev")
_MAX_LINKS = 40


@dataclass(frozen=True)
class Folder:
    """A folder and where the run sees it."""

    source: str
    target: str
    read_only: bool


def readable_paths(extra: Sequence[str], hidden: Sequence[str]) -> list[Path]:
    """Folders and files that a run may read, all below them included, and the links that lead to them.

    Nothing below `hidden` is among them, and nothing of /etc that not everybody may read.
    """
    closed = {Path(path).resolve() for path in hidden} | {Path(path) for path in _private("/etc")}
    links: dict[Path, None] = {}
    whole: dict[Path, None] = {}
    for root in (*SYSTEM, *_python(), *extra):
        *passed, real = _way_to(Path(root))
        links |= dict.fromkeys(passed)
        for path in _without(closed, real):
            if path.is_symlink():
                links[path] = None
            elif whole.keys().isdisjoint((path, *path.parents)):
                whole[path] = None
    return [*whole, *links]


def device_files(*, gpu: bool) -> list[Path]:
    """The devices that a run may open."""
    patterns = (*DEVICES, *(GPU_DEVICES if gpu else ()))
    return [path for pattern in patterns for path in sorted(_DEV.glob(pattern))]


def _python() -> Iterator[str]:
    """Where the Python that runs the models is, its packages included, by every name that leads there."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - where there is no home, it is no error
    for prefix in dict.fromkeys((sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix)):
        # A Python installed there shares its folder with its user's own files.
        if home.is_relative_to(prefix) or home / ".local" == Path(prefix):
            yield from (f"{prefix}/{part}" for part in ("bin", "lib", "lib64"))
        else:
            yield prefix
    yield sys.executable


def _way_to(path: Path) -> list[Path]:
    """Every link on the way to this path, and at last what it leads to."""
    links: list[Path] = []
    seen, parts = Path("/"), list(path.parts[1:])
    while parts:
        part = parts.pop(0)
        step = seen.parent if part == ".." else seen / part
        # More are a loop, for the kernel, too.
        if os.path.islink(step) and len(links) < _MAX_LINKS:  # noqa: PTH114 - where it is not reached, it says no
            links.append(step)
            target = step.readlink()
            if target.is_absolute():
                seen = Path("/")
            parts = [*target.parts[target.is_absolute() :], *parts]
        else:
            seen = step
    return [*links, seen]


def _without(closed: Iterable[Path], path: Path) -> Iterator[Path]:
    """This path, or, if something closed lies below it, all else that does."""
    if path in closed or not os.path.exists(path):  # noqa: PTH110 - likewise
        return
    below = [each for each in closed if each.is_relative_to(path)]
    if not below:
        yield path
        return
    try:
        entries = sorted(path.iterdir())
    except PermissionError:
        return
    for entry in entries:
        # A link opens nothing by itself.
        if entry.is_symlink():
            yield entry
        else:
            yield from _without(below, entry)


def _private(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISLNK(mode):
                    continue
                wanted = stat.S_IROTH | stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
                if mode & wanted != wanted:
                    yield entry.path
                elif stat.S_ISDIR(mode):
                    yield from _private(entry.path)
            except (FileNotFoundError, PermissionError):
                # Removed meanwhile, or closed to this user, and so to its runs.
                continue
