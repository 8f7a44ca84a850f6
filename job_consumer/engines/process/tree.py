"""Finds the descendants of a process, measures their memory, and kills them. Without /proc it finds none."""

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
    """The processes below this one, without itself; includes zombies."""
    found: list[int] = []
    for child in _children(pid):
        found += [child, *descendants(child)]
    return found


def exceeds_memory(pids: Iterable[int], limit_bytes: int) -> bool:
    """Whether the memory that only these processes hold exceeds the limit."""
    pids = list(pids)
    if sum(map(_own_bytes, pids)) <= limit_bytes:
        return False
    # A parent and its forks each count the pages they share; the exact figure is expensive, so it comes second.
    return sum(map(_proportional_bytes, pids)) > limit_bytes


def kill(pids: Iterable[int]) -> None:
    """Kill these processes; those that are gone are skipped."""
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
    """Make this process the parent of each descendant that loses its own from now on."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Kill this process when its parent dies. A change of credentials takes that back."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def _children(pid: int) -> Iterator[int]:
    # The kernel lists children per thread. Not by `glob`: before Python 3.13 it raises where a process ends meanwhile.
    threads = PROC / str(pid) / "task"
    with suppress(OSError):
        for thread in threads.iterdir():
            with suppress(OSError):
                yield from map(int, (thread / "children").read_text().split())


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
