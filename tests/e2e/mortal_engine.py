"""A Docker Engine that a test may stop, kill and start again: one of a host made for the time of the test.

The host comes from the program that `TEST_SECOND_HOST_COMMAND` names; see `tests.e2e.swarm`.
"""

import os
import random
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import pytest

from tests.e2e.swarm import COMMAND, Host, run
from tests.waiting import START_S, wait_until


class Death(StrEnum):
    """How an Engine goes away."""

    RESTART = "restart"
    """TERM, as `systemctl restart docker` sends it."""
    KILL = "kill -9"
    """The Engine alone; containers and their shims are left to themselves."""
    POWER_CUT = "power cut"
    """Everything of the host at once, with what it keeps in memory."""


@dataclass
class MortalEngine:
    """The Engine of one host. Its containers and images outlive it."""

    host: Host
    run_dir: Path
    """Where its socket and the state of what runs are."""
    command: list[str]
    keeper: "subprocess.Popen[bytes]"
    """Keeps the host's namespaces while no Engine is in them."""
    live_restore: bool = False
    _started: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._spawn()
        wait_until(self._has_come_up, self.log, within_s=START_S)

    def _has_come_up(self) -> bool:
        if self._started[-1].poll() is not None:
            # As its service manager would. On a busy machine an Engine gives up waiting for its containerd.
            self._spawn()
        return self.answers()

    def _spawn(self) -> None:
        # What an Engine that was killed leaves, and this start would take for a living one.
        (self.run_dir / "dockerd.pid").unlink(missing_ok=True)
        command = [*self.command, "--live-restore"] if self.live_restore else self.command
        inside = ["nsenter", "--target", str(self.keeper.pid), "--mount", "--net", "--uts", *command]
        with (self.run_dir / "dockerd.log").open("ab") as log:
            self._started.append(
                subprocess.Popen(inside, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            )

    def answers(self) -> bool:
        """Whether it does."""
        return self.host.docker("info", "--format", "{{.ID}}", check=False) != ""

    def die(self, death: Death) -> None:
        """Go away; returns once it is gone."""
        pid = int((self.run_dir / "dockerd.pid").read_text())
        if death is Death.RESTART:
            os.kill(pid, signal.SIGTERM)
        elif death is Death.KILL:
            os.kill(pid, signal.SIGKILL)
        else:
            for each in [pid, *self._others()]:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
        for started in self._started:
            if started.pid == pid or death is not Death.KILL:
                started.wait(START_S)
        wait_until(lambda: not is_running(pid), self.log, within_s=START_S)
        if death is Death.POWER_CUT:
            self._forget_memory()

    def log(self) -> str:
        """The end of what it wrote."""
        return (self.run_dir / "dockerd.log").read_text(errors="replace")[-3000:]

    def close(self) -> None:
        """Let the namespaces go; the host is down."""
        self.keeper.kill()
        self.keeper.wait()
        for started in self._started:
            started.kill()
            started.wait()

    def _others(self) -> list[int]:
        """containerd, the shims of the containers, and everything in the containers."""
        found: list[int] = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                program = Path(os.fsdecode(arguments[0])).name
                if program.startswith("containerd") and any(bytes(self.run_dir) in each for each in arguments):
                    found.append(int(entry.name))
        # containerd first: it is to see nothing of the others' end.
        return found + [pid for parent in found for pid in descendants(parent)]

    def _forget_memory(self) -> None:
        """What lies in /run and in the kernel is gone after a power cut."""
        script = """
        grep -oE ' (/run/hosts/%s|/var/lib/docker-host-%s)/[^ ]+' /proc/self/mounts | sort -r | xargs -r umount -l
        rm -rf /run/hosts/%s/exec
        """.replace("%s", self.run_dir.name)
        run("nsenter", "--target", str(self.keeper.pid), "--mount", "sh", "-c", script)
        run("ip", "-n", self.run_dir.name, "link", "delete", "docker0", check=False)


def descendants(pid: int) -> list[int]:
    """Every process below this one."""
    found: list[int] = []
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in map(int, children):
            found += [child, *descendants(child)]
    return found


def is_running(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def mortal_engine(version: str) -> Iterator[MortalEngine]:
    """An Engine of the kind that `TEST_SECOND_HOST_COMMAND` makes for this version; skips where there is none."""
    if not COMMAND:
        pytest.skip("no second Docker host: TEST_SECOND_HOST_COMMAND names no program that makes hosts")
    name, number = f"is{secrets.token_hex(3)}", random.choice(range(2, 251))  # noqa: S311 - no secret
    engine = None
    try:
        address = run(COMMAND, "up", name, str(number), *([version] if version else [])).splitlines()[-1]
        engine = _take_over(Host(address, f"10.77.0.{number}", f"host-{name}"))
        yield engine
        if not engine.answers():
            # What runs is removed through it.
            engine.start()
    finally:
        run(COMMAND, "down", name, check=False)
        if engine is not None:
            engine.close()


def _take_over(host: Host) -> MortalEngine:
    """An Engine that runs, with a keeper of its namespaces."""
    run_dir = Path(host.engine.removeprefix("unix://")).parent
    pid = int((run_dir / "dockerd.pid").read_text())
    command = [os.fsdecode(each) for each in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if each]
    inside = ["nsenter", "--target", str(pid), "--mount", "--net", "--uts", "sleep", "infinity"]
    return MortalEngine(host, run_dir, command, subprocess.Popen(inside, stdin=subprocess.DEVNULL))
