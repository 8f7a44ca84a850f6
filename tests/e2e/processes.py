"""A service as a process of its own."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.commands import Command
from tests.forks import Forked


class Process:
    """One service as a process of its own; its output goes to a file that a failing test shows."""

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        log: Path,
        launch: Callable[[str, dict[str, str], Path], Forked | Command] | None = None,
    ) -> None:
        """`launch` starts the service instead of the command."""
        self.name = name
        self._launch = launch
        self.command = command
        self.environment = {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}
        """Of the next start."""
        self.log = log
        self._process: subprocess.Popen[bytes] | Forked | Command | None = None

    def start(self) -> None:
        """Start it; it may not be ready yet."""
        if self._launch is not None:
            self._process = self._launch(self.name, self.environment, self.log)
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send a signal and wait for the end."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"{self.name} did not stop:\n{self.log.read_text()[-4000:]}") from None
        finally:
            self._process = None

    def kill(self) -> None:
        """End it as a power cut would."""
        self.end(signal.SIGKILL)

    def wait(self, seconds: float) -> int:
        """Wait for it to end by itself; returns its exit code."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.wait(seconds)

    def output(self) -> str:
        """What it wrote."""
        return self.log.read_text() if self.log.exists() else ""
