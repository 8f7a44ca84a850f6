"""A filter of system calls: what a program has no use for, and what leads past other walls, is refused for good.

It names what it refuses, as programs of any kind must go on. The numbers are the kernel's, for the two architectures
on which models run; see seccomp(2) and Docker's default profile, which refuses the same to a container.
"""

import ctypes
import errno
import os
import socket

from job_consumer.engines.process.system_calls import prctl

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_REFUSE = _ERRNO | errno.EPERM
_ABSENT = _ERRNO | errno.ENOSYS
_NEW_NAMESPACES = 0x7E02_0000
_X32 = 0x4000_0000
"""x86-64's other numbers, by which every call has a second name."""
_ARCHITECTURES = {"x86_64": (0xC000_003E, 0), "aarch64": (0xC000_00B7, 1)}
"""The machine's name, how the filter sees it, and the column of the numbers below."""
OWN_NETWORK = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_NETLINK", 16))
"""What a program may open that has a network of its own, which leads nowhere. Never AF_VSOCK, nor AF_PACKET."""

_CLONE, _CLONE3, _SOCKET = (56, 220), (435, 435), (41, 198)
_REFUSED: dict[str, tuple[int, ...]] = {
    # Other processes' memory and files.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # Another view of the files.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    # Namespaces, in which a user has privileges that no user has outside.
    "unshare": (272, 97),
    "setns": (308, 268),
    # Parts of the kernel that are large, and that a computation has no use for.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    # What it does passes no filter.
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # The machine itself.
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "iopl": (172,),
    "ioperm": (173,),
}


class _Instruction(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction))]


_Line = tuple[int, int, int, int]


def refuse_calls(families: tuple[int, ...]) -> None:
    """From now on refuse them to this process and those it starts; sockets only of these families.

    A program for another architecture than the machine's own, a 32-bit one, is killed. no_new_privs must be set.
    Raises `OSError`.
    """
    lines = _filter(os.uname().machine, families)
    instructions = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    program = _Program(len(lines), instructions)
    prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program))


def _filter(machine: str, families: tuple[int, ...]) -> list[_Line]:
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no filter of system calls for {machine}")
    architecture, column = _ARCHITECTURES[machine]
    lines = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), _answer(_KILL), (_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":
        lines += [(_AT_LEAST, 0, 1, _X32), _answer(_ABSENT)]
    for numbers in _REFUSED.values():
        if column < len(numbers):
            lines += [(_EQUAL, 0, 1, numbers[column]), _answer(_REFUSE)]
    # Its flags lie in memory, which a filter cannot read: the C library then takes the older call.
    lines += [(_EQUAL, 0, 1, _CLONE3[column]), _answer(_ABSENT)]
    lines += [(_EQUAL, 0, 4, _CLONE[column]), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
    lines += [(_ANY_BIT, 0, 1, _NEW_NAMESPACES), _answer(_REFUSE), _answer(_ALLOW)]
    lines += [(_EQUAL, 1, 0, _SOCKET[column]), _answer(_ALLOW), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
    for family in families:
        lines += [(_EQUAL, 0, 1, family), _answer(_ALLOW)]
    return [*lines, _answer(_REFUSE)]


def _answer(what: int) -> _Line:
    return (_RETURN, 0, 0, what)
