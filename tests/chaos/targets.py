"""What a storm breaks: each part can be killed and started, frozen and thawed. All were started by the storm itself."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.e2e.processes import Process
from tests.tcp_proxy import Mode, TcpProxy
from tests.waiting import wait_until

_UNTIL_RUN_S = 5.0
"""How long a fault waits for a container to strike."""


class Target(Protocol):
    """A part of a running server."""

    name: str

    def kill(self) -> None:
        """End it as a power cut would."""

    def start(self) -> None:
        """Start it again."""

    def freeze(self) -> None:
        """Let it stand still: it neither answers nor ends."""

    def thaw(self) -> None:
        """Let it go on."""


class Service:
    """One of our processes."""

    def __init__(self, process: Process, name: str) -> None:
        self.name = name
        self._process = process

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()

    def start(self) -> None:
        """Start it, unless it lives."""
        if not self._process.is_alive:
            self._process.start()

    def freeze(self) -> None:
        """Let it stand still."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._process.pid, signal.SIGCONT)


@dataclass
class Container:
    """A database or a broker in a container."""

    name: str
    container: str

    def kill(self) -> None:
        """End it as a power cut would."""
        docker("kill", "--signal", "KILL", self.container, check=False)

    def start(self) -> None:
        """Start it with the data that it had."""
        docker("start", self.container)

    def freeze(self) -> None:
        """Let it stand still."""
        docker("pause", self.container)

    def thaw(self) -> None:
        """Let it go on."""
        docker("unpause", self.container)


@dataclass
class Link:
    """The way to a database or broker that others use, too: it can be cut, or swallow what is sent."""

    name: str
    proxy: TcpProxy

    def kill(self) -> None:
        """Reset all connections and refuse new ones."""
        self.proxy.set_mode(Mode.REFUSE)

    def start(self) -> None:
        """Let bytes pass."""
        self.proxy.set_mode(Mode.PASS)

    def freeze(self) -> None:
        """Keep connections open and let nothing pass."""
        self.proxy.set_mode(Mode.BLACKHOLE)

    def thaw(self) -> None:
        """Let bytes pass."""
        self.proxy.set_mode(Mode.PASS)


class ModelContainer:
    """A container of a running task, another one each time."""

    name = "model container"

    def __init__(self, running: Callable[[], list[str]], engine: str | None, choice: random.Random) -> None:
        self._running = running
        self._engine = engine
        self._choice = choice
        self._frozen: str | None = None

    def kill(self) -> None:
        """Kill one, if any runs."""
        if container := self._pick():
            docker("kill", "--signal", "KILL", container, engine=self._engine, check=False)

    def start(self) -> None:
        """It is the consumer's to start another one."""

    def freeze(self) -> None:
        """Pause one, if any runs."""
        if container := self._pick():
            self._frozen = container
            docker("pause", container, engine=self._engine, check=False)

    def thaw(self) -> None:
        """Let it go on, if it is still there."""
        if self._frozen:
            docker("unpause", self._frozen, engine=self._engine, check=False)
        self._frozen = None

    def _pick(self) -> str | None:
        until = time.monotonic() + _UNTIL_RUN_S
        while not (running := self._running()) and time.monotonic() < until:
            time.sleep(0.05)
        return self._choice.choice(running) if running else None


class Daemon:
    """A Docker Engine on a host of its own, whose process id lies beside its socket."""

    name = "engine"

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._pid_file = Path(socket).with_name("dockerd.pid")
        pid = self._pid()
        self._command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
        # Held open, so that the host keeps its network and mounts while its Engine is dead.
        self._spaces = {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in ("net", "mnt", "uts")}

    def kill(self) -> None:
        """End dockerd as a power cut would; containers go on until it is back."""
        os.kill(self._pid(), signal.SIGKILL)

    def start(self) -> None:
        """Start dockerd in the place where it was, and wait until it answers."""
        self._pid_file.unlink(missing_ok=True)
        spaces = {"net": "--net", "mnt": "--mount", "uts": "--uts"}
        options = [f"{spaces[kind]}=/proc/self/fd/{number}" for kind, number in self._spaces.items()]
        subprocess.Popen(
            ["nsenter", *options, *self._command],
            pass_fds=list(self._spaces.values()),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self._answers, "the Engine is back")

    def freeze(self) -> None:
        """Let it stand still."""
        os.kill(self._pid(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._pid(), signal.SIGCONT)

    def _answers(self) -> bool:
        command = ["docker", "--host", f"unix://{self._socket}", "ps"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _pid(self) -> int:
        return int(self._pid_file.read_text())


def docker(*arguments: str, engine: str | None = None, check: bool = True) -> str:
    """Run a command of Docker's CLI; returns its stdout without the white space around it."""
    host = ["--host", engine] if engine else []
    done = subprocess.run(["docker", *host, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"docker {arguments}: {done.stderr}"
    return done.stdout.strip()


def run_container(image: str, environment: Mapping[str, str], port: int, inner: int) -> str:
    """Start a container with a port of the loopback that it keeps; returns its id."""
    variables = [f"--env={name}={value}" for name, value in environment.items()]
    label = "--label=inference-server-tests=chaos"
    return docker("run", "--detach", label, *variables, f"--publish=127.0.0.1:{port}:{inner}", image)
