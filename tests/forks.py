"""Starts services in a tenth of the time: one process has imported them all, and forks for every start.

`python -m tests.forks` is that process. It reads a JSON order per line and answers each with the pid of the service.
"""

import importlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SERVICES = ("private_api", "public_api", "job_consumer")


class Forked:
    """A service that was forked: what tests use of a `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """None while it lives. Nobody here is its parent, so how it ended is not known."""
        return 0 if self._has_ended(0) else None

    def wait(self, seconds: float | None = None) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""
        if not self._has_ended(seconds):
            raise subprocess.TimeoutExpired(f"process {self.pid}", seconds or 0)
        return 0

    def _has_ended(self, seconds: float | None) -> bool:
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def __del__(self) -> None:
        os.close(self._handle)


class ForkServer:
    """The process that forks."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def start(self, service: str, environment: dict[str, str], log: Path) -> Forked:
        """Start a service with this environment and no other; its output is added to `log`."""
        assert self._process.stdin is not None
        order = {"service": service, "environment": environment, "log": str(log)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Forked(int(self._read()))

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def fork_server() -> Iterator[ForkServer]:
    """A server for the time of a block; services that still run go on."""
    command = [sys.executable, "-m", "tests.forks"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield ForkServer(process)
        assert process.stdin is not None
        process.stdin.close()


def main() -> None:
    """Fork until nobody is there to order."""
    mains = {service: importlib.import_module(f"{service}.__main__") for service in SERVICES}
    # The system buries the children.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(mains[order["service"]], order)
        print(pid, flush=True)


def _become(module: Any, order: dict[str, Any]) -> None:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.clear()
        os.environ.update(order["environment"])
        code = module.main()
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
