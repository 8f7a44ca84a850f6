"""What a run of the process engine keeps on disk: all that a restarted consumer needs to find and adopt it.

<work>/runs/<name>/spec.json    what to run
                   lock         held by the supervisor while it lives: the kernel frees it whatever happens
                   boot         the boot of the machine in which it was started
                   pid          the supervisor's process id
                   log          the run's output, cut at its limit
                   exit.space   room for the next, which a full disk may lack
                   exit.json    how the run ended
                   tmp/         the run's HOME and TMPDIR
                   root/        empty: where the run's view of the machine lies, for the run alone
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from job_consumer.boot import boot_id
from job_consumer.descriptors import remove_tree
from job_consumer.engines import KILLED_CODE, ExitState, Interruption, RunState
from job_consumer.engines.process.view import Folder
from job_consumer.engines.process.walls import Walls

RUN_VARIABLE = "INFERENCE_SERVER_RUN"
"""In the environment of every process of a run: identifies them after their supervisor died."""
_EXIT_BYTES = 256
_DISCARDED = "discarded-"


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
    """What the run sees, the model's folder included."""
    environment: dict[str, str]
    memory_limit_bytes: int
    pids_limit: int
    log_limit_bytes: int
    server: str = ""
    """Runs of earlier releases have none of this, nor of the following."""
    walls: Walls = field(default_factory=Walls)
    readable: list[str] = field(default_factory=list)
    """Of the machine, beside the system and its Python."""
    hidden: list[str] = field(default_factory=list)
    """Of the machine, whatever of the rest lies above it."""
    has_gpu: bool = False
    shared_memory_bytes: int = 0

    def to_json(self) -> str:
        """The text from which `from_json` makes this spec again."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ProgramSpec":
        """Raises `ValueError`, `TypeError` or `KeyError` if the text is no such spec."""
        members = json.loads(text)
        members["model"] = Folder(**members["model"])
        members["folders"] = [Folder(**folder) for folder in members["folders"]]
        members["walls"] = Walls(**members.get("walls", {}))
        return cls(**members)


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def spec(self) -> Path:
        """What to run: a `ProgramSpec` as JSON."""
        return self.path / "spec.json"

    @property
    def log(self) -> Path:
        """The run's output, cut at its limit."""
        return self.path / "log"

    @property
    def temporary(self) -> Path:
        """The run's HOME and TMPDIR."""
        return self.path / "tmp"

    @property
    def root(self) -> Path:
        """An empty folder, on which the run's view of the machine is built, seen by nobody else."""
        return self.path / "root"

    @property
    def _pid(self) -> Path:
        return self.path / "pid"

    @property
    def _boot(self) -> Path:
        return self.path / "boot"

    @property
    def _exit(self) -> Path:
        return self.path / "exit.json"

    @property
    def _exit_space(self) -> Path:
        return self.path / "exit.space"

    def create(self, spec: ProgramSpec) -> None:
        """Make the folder of a run that is not started yet. Repeating it changes nothing."""
        for folder in (self.path, self.temporary, self.root):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.log.touch()
        if not self._exit_space.exists():
            self._exit_space.write_text(" " * _EXIT_BYTES)
        write_whole(self.spec, spec.to_json())

    def state(self) -> RunState | None:
        """How far the run got; None if there is no such run."""
        if not self.spec.exists():
            return None
        if self.has_exit():
            return RunState.EXITED
        if self.is_held():
            return RunState.RUNNING
        state = RunState.EXITED if self._pid.exists() else RunState.CREATED
        # Without its files, which are gone all at once, it looks like one that was not started.
        return state if self.spec.exists() else None

    def has_exit(self) -> bool:
        """Whether the supervisor wrote how the run ended."""
        return self._exit.exists()

    def exit_state(self) -> ExitState:
        """How an exited run ended. If its supervisor wrote nothing, it was killed along with it."""
        try:
            members = json.loads(self._exit.read_text())
        except FileNotFoundError:
            return ExitState(KILLED_CODE, out_of_memory=False, interruption=self._interruption())
        if (interruption := members.get("interruption")) is not None:
            members["interruption"] = Interruption(interruption)
        return ExitState(**members)

    def write_exit(self, state: ExitState) -> None:
        """Write how the run ended; the last thing its supervisor does. A full disk does not keep it from that."""
        with suppress(FileNotFoundError):
            with self._exit_space.open("r+") as file:
                file.write(json.dumps(asdict(state)).ljust(_EXIT_BYTES))
            self._exit_space.replace(self._exit)

    def write_pid(self, pid: int) -> None:
        """Write the supervisor's process id; from here on the run counts as started."""
        write_whole(self._boot, boot_id())
        write_whole(self._pid, str(pid))

    def pid(self) -> int | None:
        """The supervisor's process id, which is valid only while the lock is held."""
        try:
            return int(self._pid.read_text())
        except FileNotFoundError:
            return None

    def _interruption(self) -> Interruption:
        """What killed the supervisor. Within a boot it may have been the program itself, which is the same user."""
        try:
            is_other_boot = self._boot.read_text() != boot_id()
        except FileNotFoundError:
            # Started by an earlier release.
            is_other_boot = False
        return Interruption.ENGINE if is_other_boot else Interruption.OUTSIDE

    def is_held(self) -> bool:
        """Whether the run's supervisor is alive."""
        try:
            with self.claim() as lock:
                return lock is None
        except FileNotFoundError:
            # Discarded meanwhile.
            return False

    def discard(self) -> None:
        """Remove the run. Whoever looks at it meanwhile finds it whole or not at all.

        Raises `FileNotFoundError` if somebody else did.
        """
        discarded = self.path.with_name(f"{_DISCARDED}{secrets.token_hex(4)}")
        self.path.rename(discarded)
        remove_tree(discarded)

    @contextmanager
    def claim(self) -> Iterator[int | None]:
        """The lock's descriptor, or None if another process has it. A process that inherits it keeps the lock."""
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


def remove_discarded(runs: Path) -> None:
    """Remove what is left of discarded runs, after a process that was killed while it removed them."""
    for path in runs.glob(f"{_DISCARDED}*"):
        # Another process may remove it, too; the next one that starts tries again.
        with suppress(OSError):
            remove_tree(path)


def is_running_in(runs: Path, model: Path) -> bool:
    """Whether a run among these has its program in this model's folder."""
    for path in runs.glob("is-*"):
        run = RunFolder(path)
        with suppress(OSError, ValueError, TypeError, KeyError):
            spec = ProgramSpec.from_json(run.spec.read_text())
            if spec.model.source == str(model) and run.state() is RunState.RUNNING:
                return True
    return False


def write_whole(path: Path, text: str) -> None:
    """Write a file that no reader ever sees half-written."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    partial.write_text(text)
    partial.replace(path)
