"""The system calls of Linux that Python has no function for. Each raises `OSError` where the kernel refuses."""

import ctypes
import os

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x4_0000
_MNT_DETACH = 2
_CAPABILITY_VERSION_3 = 0x2008_0522


def call(name: str, *arguments: object) -> int:
    """Call a function of the C library by its name."""
    answer: int = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return answer


def mount(source: str | None, target: str, flags: int, kind: str | None = None, options: str | None = None) -> None:
    """See mount(2)."""
    texts = [text if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    try:
        call("mount", texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    except OSError as error:
        # Only the error's text: a program's log shows it, and paths of the machine are none of its business.
        raise OSError(error.errno, f"mount {kind or 'of a folder'}: {os.strerror(error.errno or 0)}") from error


def enter_root(root: str) -> None:
    """Make `root`, which is a mount, this process's root, and let go of the old one."""
    os.chdir(root)
    # The C library has no function for it. With the same place twice the old root lies on the new one, until it is
    # taken away: pivot_root(2).
    call("syscall", _PIVOT_ROOT.get(os.uname().machine, -1), b".", b".")
    call("umount2", b".", _MNT_DETACH)
    os.chdir("/")


_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def prctl(option: int, value: int, pointer: object = 0) -> None:
    """See prctl(2)."""
    call("prctl", option, ctypes.c_ulong(value), pointer, 0, 0)


def drop_capabilities() -> None:
    """Give up every capability for good: with no_new_privs set, no program brings one back, not even root's."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    call("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))
