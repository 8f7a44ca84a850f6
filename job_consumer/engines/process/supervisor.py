"""`python -m job_consumer.engines.process.supervisor <run folder> <lock>`: runs one program and outlives the consumer.

TERM asks the program to end, QUIT kills it. Once its exit is written, none of its processes is left.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from job_consumer.engines import ExitState
from job_consumer.engines.process.namespace import enter_namespace
from job_consumer.engines.process.run import ProgramSpec, RunFolder
from job_consumer.engines.process.tree import adopt_orphans, descendants, die_with_parent, exceeds_memory, kill

CHECK_S = 0.1
"""Between two looks at the processes of a run."""
PIECE_BYTES = 65536
CANNOT_EXECUTE = 127


class Log:
    """Carries a program's output from a pipe to a file, up to a limit of bytes."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._file = path.open("ab", buffering=0)
        self._left = limit_bytes
        self._limit = limit_bytes
        self._is_cut = False
        self.source, self.end = os.pipe()
        os.set_blocking(self.source, False)
        self.is_open = True

    def copy(self) -> None:
        """Copy what the pipe holds now. Never blocks, and returns even while the program floods it."""
        for _ in range(16):
            try:
                piece = os.read(self.source, PIECE_BYTES)
            except BlockingIOError:
                return
            if not piece:
                self.is_open = False
                return
            kept = piece[: self._left]
            self._write(kept)
            self._left -= len(kept)
            if len(kept) < len(piece) and not self._is_cut:
                self._is_cut = True
                self.note(f"the log is cut: it reached its limit of {self._limit} bytes")

    def note(self, text: str) -> None:
        """Add a line of our own, whatever the limit."""
        self._write(f"\n[{text}]\n".encode())

    def _write(self, data: bytes) -> None:
        # Without space for its log a run still ends as it does.
        with suppress(OSError):
            self._file.write(data)


class Supervisor:
    """One run, from the start of its program to the end of its last process. Single-threaded."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._spec = ProgramSpec.from_json(folder.spec.read_text())
        self._log = Log(folder.log, self._spec.log_limit_bytes)
        self._received: set[int] = set()
        self._out_of_memory = False
        self._wake, wake_end = os.pipe()
        for end in (self._wake, wake_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD):
            signal.signal(number, self._receive)

    def run(self) -> None:
        """Run the program; returns when its exit is written."""
        adopt_orphans()
        try:
            program = self._spawn()
        except OSError as error:
            self._log.note(f"the program cannot be executed: {error}")
            self._folder.write_exit(ExitState(CANNOT_EXECUTE, out_of_memory=False))
            return
        os.close(self._log.end)
        while program.poll() is None:
            self._turn(program)
        self._end_stragglers(program)
        self._log.copy()
        code = program.returncode if program.returncode >= 0 else 128 - program.returncode
        self._folder.write_exit(ExitState(code, self._out_of_memory))

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._received.add(number)

    def _spawn(self) -> subprocess.Popen[bytes]:
        spec = self._spec
        try:
            return self._spawn_with(spec.model.target, spec.environment, self._enter)
        except subprocess.SubprocessError:
            # No namespaces on this machine: the variables name the real folders instead.
            environment = {name: _real_path(spec, value) for name, value in spec.environment.items()}
            return self._spawn_with(spec.model.source, environment, die_with_parent)

    def _spawn_with(
        self, model: str, environment: dict[str, str], prepare: Callable[[], None]
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._spec.interpreter, f"{model}/{self._spec.program}"],
            stdin=subprocess.DEVNULL,
            stdout=self._log.end,
            stderr=self._log.end,
            env=environment,
            cwd=self._spec.model.source,
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509 - this process has one thread
        )

    def _enter(self) -> None:
        root = self._folder.path / "root"
        root.mkdir(exist_ok=True)
        enter_namespace(root, self._spec.folders)
        os.chdir(self._spec.model.target)
        die_with_parent()

    def _turn(self, program: subprocess.Popen[bytes]) -> None:
        """Wait for the next event, at most `CHECK_S`, and handle it."""
        select.select([self._wake, self._log.source] if self._log.is_open else [self._wake], [], [], CHECK_S)
        with suppress(BlockingIOError):
            os.read(self._wake, PIECE_BYTES)
        self._log.copy()
        if signal.SIGTERM in self._received:
            self._received.discard(signal.SIGTERM)
            os.killpg(program.pid, signal.SIGTERM)
        below = descendants(os.getpid())
        if exceeds_memory(below, self._spec.memory_limit_bytes):
            self._out_of_memory = True
        if len(below) > self._spec.pids_limit:
            self._log.note(f"the run was killed: it had more than {self._spec.pids_limit} processes")
            self._received.add(signal.SIGQUIT)
        if self._out_of_memory or signal.SIGQUIT in self._received:
            kill({*below, program.pid})

    def _end_stragglers(self, program: subprocess.Popen[bytes]) -> None:
        """Kill what the program left, including what left its session: orphans become our children."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(program.pid, signal.SIGKILL)
        while below := descendants(os.getpid()):
            kill(below)
            self._log.copy()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(0.005)


def _real_path(spec: ProgramSpec, value: str) -> str:
    """Where a path in one of the run's folders really is; any other value as it is."""
    for folder in spec.folders:
        if value == folder.target or value.startswith(f"{folder.target}/"):
            return folder.source + value.removeprefix(folder.target)
    return value


def main() -> None:
    """Detach from the process that started this one, then supervise."""
    folder, lock = RunFolder(Path(sys.argv[1])), int(sys.argv[2])
    supervisor = Supervisor(folder)
    # The consumer's child ends at once, so that the consumer has nothing to reap later.
    pid = os.fork()
    if pid:
        folder.write_pid(pid)
        return
    os.set_inheritable(lock, False)
    supervisor.run()


if __name__ == "__main__":
    main()
