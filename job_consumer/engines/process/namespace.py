"""Gives a process /input, /output and /model at these very paths, and no network, if Linux allows it."""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from job_consumer.engines.process.run import Folder

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x4_0000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def enter_namespace(root: Path, folders: Sequence[Folder]) -> None:
    """Move this process, which must have one thread, under a new root on `root`, an empty folder. Raises `OSError`.

    The new root shows everything of the machine's root, and on top of it each folder at its target.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _unshare(libc)
    _mount(libc, None, "/", MS_REC | MS_PRIVATE)
    _mount(libc, "tmpfs", str(root), 0, "tmpfs")
    hidden = {folder.target.strip("/") for folder in folders}
    for entry in Path("/").iterdir():
        if entry.name in hidden:
            continue
        place = root / entry.name
        if entry.is_symlink():
            place.symlink_to(entry.readlink())
        else:
            place.mkdir() if entry.is_dir() else place.touch()
            _mount(libc, str(entry), str(place), MS_BIND | MS_REC)
    for folder in folders:
        place = root / folder.target.strip("/")
        place.mkdir(parents=True)
        _mount(libc, folder.source, str(place), MS_BIND)
        if folder.read_only:
            # What the file system forbids already must be repeated here, or the kernel refuses.
            kept = os.statvfs(place).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
            _mount(libc, None, str(place), MS_BIND | MS_REMOUNT | MS_RDONLY | kept)
    os.chroot(root)
    os.chdir("/")
    _raise_loopback()


def _unshare(libc: ctypes.CDLL) -> None:
    """Leave the machine's mounts and network; a user other than root needs its own user namespace for that."""
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) == 0:
        return
    uid, gid = os.geteuid(), os.getegid()
    _check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET), "unshare")
    # The kernel accepts a group map only after this.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _raise_loopback() -> None:
    """Programs that talk to themselves over 127.0.0.1 need it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def _mount(libc: ctypes.CDLL, source: str | None, target: str, flags: int, kind: str | None = None) -> None:
    answer = libc.mount(
        os.fsencode(source) if source else None,
        os.fsencode(target),
        os.fsencode(kind) if kind else None,
        ctypes.c_ulong(flags),
        None,
    )
    _check(answer, f"mount {target}")


def _check(answer: int, what: str) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
