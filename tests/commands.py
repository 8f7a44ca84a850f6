"""Runs `infer` and `inference-server` in a quarter of the time: one process has imported them all, and forks for each.

What is run is a process of its own in all that a test can see of it: arguments, environment, folder, input, output,
exit code. `python -m tests.commands` is the one that forks; each process of the tests has its own.
"""

import atexit
import fcntl
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

PACKAGES = ("operations", "inference_client")
_ROOT = str(Path(__file__).parents[1])
_MESSAGE_BYTES = 128 * 1024
"""Of an order: arguments and environment."""
_AT_START = ("PYTHON", "LANG", "LC_")
"""Begins the name of a variable that an interpreter reads as it starts, so that a fork would not heed it."""
_UNBUFFERED = ("PYTHONUNBUFFERED", "1")
_HEEDED = (("PYTHONPATH", _ROOT), _UNBUFFERED)


def run_command(
    package: str,
    *arguments: str,
    env: Mapping[str, str],
    stdin: str = "",
    cwd: str | Path | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """What `python -m PACKAGE ARGUMENTS...` does. Raises `subprocess.TimeoutExpired`, in seconds."""
    with ExitStack() as opened:
        given, out, err = (opened.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        given.write(stdin.encode())
        given.seek(0)
        process = start_command(package, arguments, env, (given.fileno(), out.fileno(), err.fileno()), cwd=cwd)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode().replace("\r\n", "\n"))
    return subprocess.CompletedProcess([package, *arguments], code, *texts)


def start_command(
    package: str,
    arguments: Sequence[str],
    env: Mapping[str, str],
    files: tuple[int, int, int],
    *,
    cwd: str | Path | None = None,
    at_terminal: bool = False,
) -> "Command":
    """Start it in a session of its own, with these descriptors as its stdin, stdout and stderr.

    With `at_terminal` the first of them becomes its terminal.
    """
    heeded = [
        name
        for name, value in env.items()
        if name.startswith(_AT_START) and os.environ.get(name) != value and (name, value) not in _HEEDED
    ]
    assert not heeded, f"read at an interpreter's start: {heeded}"
    order = {
        "package": package,
        "arguments": list(arguments),
        "environment": dict(env),
        "folder": str(cwd or Path.cwd()),
        "at_terminal": at_terminal,
    }
    return _forker().start(json.dumps(order).encode(), files)


class Command:
    """A command that was started: what tests use of a `subprocess.Popen`."""

    def __init__(self, told: int) -> None:
        """`told` is where its pid and then its exit code come from."""
        self._told = told
        self._code: int | None = None
        self.pid = int(self._read())

    def wait(self, seconds: float | None = None) -> int:
        """Its exit code. Raises `subprocess.TimeoutExpired`."""
        if self._code is None:
            if not select.select([self._told], [], [], seconds)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", seconds or 0)
            self._code = int(self._read())
        return self._code

    def poll(self) -> int | None:
        """Its exit code, or None while it lives."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.send_signal(signal.SIGKILL)

    def _read(self) -> bytes:
        read = b""
        while not read.endswith(b"\n"):
            piece = os.read(self._told, 1)
            assert piece, "the process that forks has ended"
            read += piece
        return read

    def __del__(self) -> None:
        os.close(self._told)


class _Forker:
    """The process that forks, from outside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_BYTES * 2)
        command = [sys.executable, "-m", "tests.commands", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(command, cwd=_ROOT, pass_fds=[theirs.fileno()], start_new_session=True)
        atexit.register(self.close)

    def start(self, order: bytes, files: tuple[int, int, int]) -> Command:
        assert len(order) < _MESSAGE_BYTES
        told, tells = os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._orders, [order], [*files, tells])
        finally:
            os.close(tells)
        return Command(told)

    def close(self) -> None:
        self._orders.close()
        self._process.wait()


_starting = threading.Lock()


def _forker() -> _Forker:
    with _starting:
        return _forker_of(os.getpid())


@functools.cache
def _forker_of(_pid: int) -> _Forker:
    """Of this process: one that it forked has none."""
    return _Forker()


def main() -> None:
    """Fork until nobody is there to order; a fork returns from here, and is the command from then on."""
    for package in PACKAGES:
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    # What is here already is never looked at again, so that forks do not copy it.
    gc.collect()
    gc.freeze()
    orders = socket.socket(fileno=int(sys.argv[1]))
    # The system buries those that wait for a command's end.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        order, files, _, _ = socket.recv_fds(orders, _MESSAGE_BYTES, 4)
        if not order:
            return
        if os.fork() == 0:
            orders.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            *streams, tells = files
            pid = os.fork()
            if pid == 0:
                os.close(tells)
                _become(json.loads(order), streams)
                return
            _tell(pid, streams, tells)
        for each in files:
            os.close(each)


def _tell(pid: int, streams: list[int], tells: int) -> None:
    for each in streams:
        os.close(each)
    os.write(tells, f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):
        os.write(tells, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(order: dict[str, Any], streams: list[int]) -> None:
    """Take the order's place in the world, and run it as `python -m` does."""
    os.setsid()
    if order["at_terminal"]:
        fcntl.ioctl(streams[0], termios.TIOCSCTTY, 0)
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    # As an interpreter opens them.
    encoded: dict[str, Any] = {"encoding": sys.stdin.encoding, "errors": sys.stdin.errors, "closefd": False}
    sys.stdin = open(0, **encoded)  # noqa: SIM115
    sys.stdout = open(1, "w", 1 if os.isatty(1) else -1, newline="\n", **encoded)  # noqa: SIM115
    sys.stdout.reconfigure(write_through=_UNBUFFERED in os.environ.items())
    sys.stderr = open(2, "w", 1, newline="\n", **encoded | {"errors": "backslashreplace"})  # noqa: SIM115
    sys.argv[1:] = order["arguments"]
    runpy._run_module_as_main(order["package"])  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
