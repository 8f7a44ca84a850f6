"""What a run of the process engine leaves on disk: all that a restarted consumer needs to find and adopt it.

<work>/runs/<name>/spec.json    what to run
                   lock         held by the supervisor as long as it lives: the kernel lets go of it whatever happens
                   pid          the supervisor's
                   log          the run's output, cut at its limit
                   exit.json    how the run ended
                   tmp/         the run's HOME and TMPDIR
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from job_consumer.engine import ExitState, RunState

RUN_VARIABLE = "INFERENCE_SERVER_RUN"
"""In the environment of every process of a run: tells them from others after their supervisor died."""
KILLED = ExitState(exit_code=137, out_of_memory=False)


@dataclass(frozen=True)
class Folder:
    """A folder and where the run sees it."""

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True)
class ProgramSpec:
    """What the supervisor needs to know; plain enough for JSON."""

    uid: str
    fence: int
    consumer: str
    interpreter: list[str]
    program: str
    """Relative to the model's folder."""
    model: Folder
    folders: list[Folder]
    """The model's among them."""
    environment: dict[str, str]
    memory_limit_bytes: int
    pids_limit: int
    log_limit_bytes: int

    def to_json(self) -> str:
        """The inverse of `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ProgramSpec":
        """Raises `ValueError`, `TypeError` or `KeyError` where it is none."""
        members = json.loads(text)
        members["model"] = Folder(**members["model"])
        members["folders"] = [Folder(**folder) for folder in members["folders"]]
        return cls(**members)


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def spec(self) -> Path:
        """See the module."""
        return self.path / "spec.json"

    @property
    def log(self) -> Path:
        """See the module."""
        return self.path / "log"

    @property
    def temporary(self) -> Path:
        """See the module."""
        return self.path / "tmp"

    @property
    def _pid(self) -> Path:
        return self.path / "pid"

    @property
    def _exit(self) -> Path:
        return self.path / "exit.json"

    def create(self, spec: ProgramSpec) -> None:
        """Make the folder of a run that is not started yet. Repeating it changes nothing."""
        for folder in (self.path, self.temporary):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.log.touch()
        write_whole(self.spec, spec.to_json())

    def state(self) -> RunState | None:
        """How far the run got; None where there is none."""
        if not self.spec.exists():
            return None
        if self.has_exit():
            return RunState.EXITED
        if self.is_held():
            return RunState.RUNNING
        if not self._pid.exists():
            return RunState.CREATED
        return RunState.EXITED

    def has_exit(self) -> bool:
        """Whether the supervisor had its last words."""
        return self._exit.exists()

    def exit_state(self) -> ExitState:
        """How an exited run ended; without a word from its supervisor, as killed."""
        try:
            return ExitState(**json.loads(self._exit.read_text()))
        except FileNotFoundError:
            return KILLED

    def write_exit(self, state: ExitState) -> None:
        """Last words of the supervisor."""
        write_whole(self._exit, json.dumps(asdict(state)))

    def write_pid(self, pid: int) -> None:
        """From here on the run counts as started."""
        write_whole(self._pid, str(pid))

    def pid(self) -> int | None:
        """The supervisor's process id, which is its own only as long as the lock is held."""
        try:
            return int(self._pid.read_text())
        except FileNotFoundError:
            return None

    def is_held(self) -> bool:
        """Whether a supervisor lives."""
        with self.claim() as lock:
            return lock is None

    @contextmanager
    def claim(self) -> Iterator[int | None]:
        """The lock's descriptor, None where somebody else has it. Who inherits the descriptor keeps the lock."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a file that is never seen half."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    partial.write_text(text)
    partial.replace(path)
