"""A program of a model that tries to leave its run. Prints a line for each attempt: its name, and `done` or why not.

Beside it lies `targets.json`, with what it tries to reach on the machine it runs on.
"""

import ctypes
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

TARGETS = json.loads((Path(__file__).parent / "targets.json").read_text())
LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE = 0x4206
CLONE_NEWUSER, CLONE_NEWNS = 0x1000_0000, 0x0002_0000
KEY_SPEC_SESSION_KEYRING = -3
SYS = {
    "x86_64": {"keyctl": 250, "io_uring_setup": 425, "bpf": 321},
    "aarch64": {"keyctl": 219, "io_uring_setup": 425, "bpf": 280},
}


def call(name: str, *arguments: object) -> None:
    if getattr(LIBC, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def read(name: str) -> None:
    Path(TARGETS[name]).read_bytes()


def write(path: str) -> None:
    Path(path).write_text("was here")


def connect(family: int, address: object) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.settimeout(5)
        attempt.connect(address)  # type: ignore[arg-type]


def send_datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attempt:
        attempt.settimeout(5)
        attempt.sendto(b"was here", ("127.0.0.1", TARGETS["udp_port"]))
        attempt.recv(10)


ATTEMPTS: dict[str, Callable[[], object]] = {
    "read database": lambda: read("database"),
    "read other task": lambda: read("other_task"),
    "read home": lambda: read("home"),
    "read environment of the server": lambda: Path(f"/proc/{TARGETS['pid']}/environ").read_bytes(),
    "read through a process of the server": lambda: Path(
        f"/proc/{TARGETS['pid']}/root{TARGETS['database']}"
    ).read_bytes(),
    "write beside the run": lambda: write(TARGETS["outside"]),
    "write to the input": lambda: write(os.environ["INPUT_DIR"] + "/scan.txt"),
    "write to the model": lambda: write(os.environ["MODEL_DIR"] + "/weights.txt"),
    "connect to a port": lambda: connect(socket.AF_INET, ("127.0.0.1", TARGETS["tcp_port"])),
    "connect to the outside": lambda: connect(socket.AF_INET, (TARGETS["address"], TARGETS["tcp_port"])),
    "send a datagram": send_datagram,
    "connect to a service's socket": lambda: connect(socket.AF_UNIX, TARGETS["unix_socket"]),
    "connect to an abstract socket": lambda: connect(socket.AF_UNIX, "\0" + TARGETS["abstract_socket"]),
    "signal the server": lambda: os.kill(TARGETS["pid"], signal.SIGCONT),
    "trace the server": lambda: call("ptrace", PTRACE_SEIZE, TARGETS["pid"], None, None),
    "open AF_VSOCK": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close(),
    "trace a child": lambda: in_child(trace_child),
    "take namespaces": lambda: in_child(lambda: call("unshare", CLONE_NEWUSER | CLONE_NEWNS)),
    "use the kernel's keys": lambda: call("syscall", number("keyctl"), 0, KEY_SPEC_SESSION_KEYRING, 1),
    "use io_uring": lambda: call("syscall", number("io_uring_setup"), 1, (ctypes.c_uint32 * 32)()),
}


def number(name: str) -> int:
    return SYS[os.uname().machine][name]


def trace_child() -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        call("ptrace", PTRACE_SEIZE, pid, None, None)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def in_child(attempt: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise OSError(code, os.strerror(code))


for name, attempt in ATTEMPTS.items():
    try:
        attempt()
    except OSError as error:
        print(f"{name}: {type(error).__name__}", flush=True)
    else:
        print(f"{name}: done", flush=True)
