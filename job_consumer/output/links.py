"""Finds what a symbolic link in /output leads to, without following it: every step is looked up below /output."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from errno import ELOOP

from job_consumer.descriptors import open_beneath

_MOST_LINKS = 40
"""As many as Linux follows in one path."""


@dataclass(frozen=True)
class Target:
    """What a link leads to inside /output."""

    path: str
    """Below /output, without any link in it; empty for /output itself."""
    status: os.stat_result


def find_target(root_fd: int, path: str, roots: Sequence[str]) -> Target | None:
    """What the link at `path` leads to; None if it leads out of /output.

    `roots` are the absolute paths that a run may know /output by. Raises `OSError` if it leads nowhere.
    """
    found: list[str] = []
    left = path.split("/")[::-1]
    links = 0
    while left:
        part = left.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not found:
                return None
            found.pop()
            continue
        with open_beneath(root_fd, found) as folder_fd:
            status = os.stat(part, dir_fd=folder_fd, follow_symlinks=False)
            if not stat.S_ISLNK(status.st_mode):
                found.append(part)
                continue
            text = os.readlink(part, dir_fd=folder_fd)
        links += 1
        if links > _MOST_LINKS:
            raise OSError(ELOOP, os.strerror(ELOOP))
        if text.startswith("/"):
            root = next((root for root in roots if text == root or text.startswith(f"{root}/")), None)
            if root is None:
                return None
            found, text = [], text.removeprefix(root)
        left += text.split("/")[::-1]
    return Target("/".join(found), _status(root_fd, found))


def _status(root_fd: int, found: list[str]) -> os.stat_result:
    if not found:
        return os.fstat(root_fd)
    *parents, name = found
    with open_beneath(root_fd, parents) as folder_fd:
        return os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
