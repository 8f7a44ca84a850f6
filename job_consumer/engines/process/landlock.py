"""Landlock: a process denies itself, for good, whatever files it does not name. See landlock(7)."""

import ctypes
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from job_consumer.engines.process.system_calls import call

# The same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_ABI_1 = 0x1FFF
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_TCP = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3
TRUNCATE_SINCE, TCP_SINCE, IOCTL_SINCE, SCOPE_SINCE = 3, 4, 5, 6
"""The ABIs from which on it knows truncation, TCP, ioctl of devices, and signals."""
FIRST_ABI = 2
"""The one before refuses to move a file from one folder to another, even where both may be written to."""


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scope", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("access", ctypes.c_uint64), ("descriptor", ctypes.c_int32)]


def landlock_abi() -> int:
    """What this kernel's Landlock can do; 0 if there is none that is of use."""
    try:
        abi = call("syscall", _CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    except OSError:
        return 0
    return abi if abi >= FIRST_ABI else 0


def restrict_files(abi: int, readable: Iterable[Path], writable: Iterable[Path], *, tcp: bool) -> None:
    """From now on read only below `readable`, and write below `writable`; other paths are as if nobody could open them.

    Nothing outside of this process and those it starts can be traced, nor, from `SCOPE_SINCE` on, be sent a signal.
    Without `tcp`, from `TCP_SINCE` on, no port is reached or taken. no_new_privs must be set. Raises `OSError`.
    """
    write = _known(abi)
    ruleset = _Ruleset(write, 0 if tcp or abi < TCP_SINCE else _TCP, _ABSTRACT_SOCKETS_AND_SIGNALS)
    # A kernel refuses a structure with members it does not know, unless they are zero.
    size = 24 if abi >= SCOPE_SINCE else 16 if abi >= TCP_SINCE else 8
    rules = call("syscall", _CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), 0)
    try:
        for paths, access in ((readable, _READ), (writable, write)):
            for path in paths:
                _allow(rules, path, access)
        call("syscall", _RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _known(abi: int) -> int:
    later = (_REFER, _TRUNCATE if abi >= TRUNCATE_SINCE else 0, _IOCTL_DEV if abi >= IOCTL_SINCE else 0)
    return _ABI_1 | sum(later)


def _allow(rules: int, path: Path, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, PermissionError):
        # What cannot be reached need not be allowed.
        return
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISLNK(mode):
            # Links may be followed anyway; what one leads to is allowed by its own name.
            return
        if not stat.S_ISDIR(mode):
            access &= _OF_FILES
        rule = _PathBeneath(access, descriptor)
        call("syscall", _ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)
