"""The descendants of a process, their memory, and their end. Where there is no /proc, all of it is empty."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def descendants(pid: int) -> list[int]:
    """The processes below this one, without it; zombies among them."""
    found: list[int] = []
    for child in _children(pid):
        found += [child, *descendants(child)]
    return found


def exceeds_memory(pids: Iterable[int], limit_bytes: int) -> bool:
    """Whether these processes together hold more memory that is theirs alone than the limit."""
    pids = list(pids)
    if sum(map(_own_bytes, pids)) <= limit_bytes:
        return False
    # A parent and its forks count the pages they share each; the exact figure is dear, so it comes second.
    return sum(map(_proportional_bytes, pids)) > limit_bytes


def kill(pids: Iterable[int]) -> None:
    """End these processes."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def find_by_environment(variable: str, value: str) -> list[int]:
    """The processes of this user that were started with this variable."""
    wanted = f"{variable}={value}".encode()
    found = []
    for entry in PROC.glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def adopt_orphans() -> None:
    """From now on a descendant that loses its parent becomes a child of this process."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Kill this process when its parent dies. A change of credentials takes that back."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def _children(pid: int) -> Iterator[int]:
    # Each thread has the children it made.
    for listing in (PROC / str(pid) / "task").glob("*/children"):
        with suppress(OSError):
            yield from map(int, listing.read_text().split())


def _own_bytes(pid: int) -> int:
    try:
        _, resident, shared, *_ = (PROC / str(pid) / "statm").read_text().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _proportional_bytes(pid: int) -> int:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return _own_bytes(pid)
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:"))
