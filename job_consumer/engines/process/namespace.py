"""Moves a process into namespaces of its own: other processes, networks and most of the machine's files are not there.

Every user may do so where Linux allows user namespaces to everybody.
"""

import fcntl
import os
import re
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from job_consumer.engines.process.system_calls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    call,
    enter_root,
    mount,
)
from job_consumer.engines.process.view import Folder

_NEW_USER = 0x1000_0000
_NEW_OTHERS = 0x0002_0000 | 0x0800_0000 | 0x2000_0000 | 0x4000_0000
"""Mounts, System V IPC, processes, network."""
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_SHM = "dev/shm"


def leave_machine() -> None:
    """Give this process, which has one thread, namespaces of its own; its next child is the first process in them.

    It stays the user it is. Raises `OSError` where Linux does not allow it.
    """
    uid, gid = os.geteuid(), os.getegid()
    call("unshare", _NEW_USER | _NEW_OTHERS)
    # The kernel accepts a group map only after this.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def enter_view(
    root: Path, folders: Sequence[Folder], readable: Sequence[Path], devices: Sequence[Path], *, shm_bytes: int
) -> None:
    """Make a new root on `root`, an empty folder, of nothing but these, and enter it. Raises `OSError`.

    The first process of new namespaces calls it. `readable` and `devices` are where they are on the machine, each
    folder at its target. Only the folders that are not read-only, and /dev/shm, can be written to.
    """
    mount(None, "/", MS_REC | MS_PRIVATE)
    mount("tmpfs", str(root), MS_NOSUID | MS_NODEV, "tmpfs", "mode=0755")
    for folder in folders:
        _bind(Path(folder.source), _make(root / folder.target.strip("/"), is_folder=True))
    for path in readable:
        _show(root, path)
    _make_devices(root, devices, shm_bytes)
    mount("proc", str(_make(root / "proc", is_folder=True)), MS_NOSUID | MS_NODEV | MS_NOEXEC, "proc")
    # In a namespace without it, glibc's `tmpfile` and others find no place.
    (root / "var").mkdir()
    (root / "var/tmp").symlink_to("/tmp")  # noqa: S108 - the run's own
    own = {root / folder.target.strip("/") for folder in folders if not folder.read_only}
    _make_read_only(root, {*own, root / _SHM, root / "dev/pts"})
    enter_root(str(root))
    _raise_loopback()


def _show(root: Path, path: Path) -> None:
    place = root / path.relative_to("/")
    if place.is_symlink() or (place.exists() and place.samefile(path)):
        return
    if path.is_symlink():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path.readlink())
    else:
        _bind(path, _make(place, is_folder=path.is_dir()))


def _make(place: Path, *, is_folder: bool) -> Path:
    if is_folder:
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    return place


def _bind(source: Path, place: Path) -> None:
    mount(str(source), str(place), MS_BIND | MS_REC)


def _make_devices(root: Path, devices: Sequence[Path], shm_bytes: int) -> None:
    for path in devices:
        _show(root, path)
    mount(
        "tmpfs", str(_make(root / _SHM, is_folder=True)), MS_NOSUID | MS_NODEV, "tmpfs", f"mode=1777,size={shm_bytes}"
    )
    terminals = _make(root / "dev/pts", is_folder=True)
    mount("devpts", str(terminals), MS_NOSUID | MS_NOEXEC, "devpts", "newinstance,ptmxmode=0666,mode=0620")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd"}
    links |= {name: f"/proc/self/fd/{number}" for number, name in enumerate(("stdin", "stdout", "stderr"))}
    for name, target in links.items():
        (root / "dev" / name).symlink_to(target)


def _make_read_only(root: Path, writable: set[Path]) -> None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # The kernel writes spaces and the like as octal numbers.
        place = Path(re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), line.split()[4]))
        if not place.is_relative_to(root):
            continue
        # A mount that this user cannot reach cannot be written to either.
        with suppress(PermissionError):
            # What the file system forbids already must be repeated here, or the kernel refuses.
            kept = os.statvfs(place).f_flag & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
            flags = kept | MS_NOSUID | (0 if place in writable else MS_RDONLY)
            mount(None, str(place), MS_BIND | MS_REMOUNT | flags)


def _raise_loopback() -> None:
    """Programs that talk to themselves over 127.0.0.1 need it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
