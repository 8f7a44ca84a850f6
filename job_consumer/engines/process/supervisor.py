"""`python -m job_consumer.engines.process.supervisor <run folder> <lock>`: runs one program and outlives the consumer.

TERM asks the program to end, QUIT kills it. Once its exit is written, none of its processes is left.
"""

import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from job_consumer.engines import KILLED_CODE, ExitState, Interruption
from job_consumer.engines.process.init import CannotConfine, start_init
from job_consumer.engines.process.run import ProgramSpec, RunFolder
from job_consumer.engines.process.tree import adopt_orphans, descendants, exceeds_memory, kill

CHECK_S = 0.1
"""Between two looks at the processes of a run."""
PIECE_BYTES = 65536


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


class Program:
    """A run's init, which ends as its program does."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exit_code = KILLED_CODE

    def is_running(self) -> bool:
        """Whether it is. To be asked until it is not: another question finds another process, or no process."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            self.exit_code = code if code >= 0 else 128 - code
        return not pid


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
            program = Program(start_init(self._spec, self._folder.root, self._log.end))
        except CannotConfine as error:
            # A program is not run without a wall that stands here. That is not the model's fault, but no reason to try
            # for ever, either.
            self._log.note(f"the program was not started: {error}")
            self._folder.write_exit(ExitState(KILLED_CODE, out_of_memory=False, interruption=Interruption.OUTSIDE))
            return
        os.close(self._log.end)
        while program.is_running():
            self._turn(program)
        self._end_stragglers()
        self._log.copy()
        self._folder.write_exit(ExitState(program.exit_code, self._out_of_memory))

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._received.add(number)

    def _turn(self, program: Program) -> None:
        """Wait for the next event, at most `CHECK_S`, and handle it."""
        select.select([self._wake, self._log.source] if self._log.is_open else [self._wake], [], [], CHECK_S)
        with suppress(BlockingIOError):
            os.read(self._wake, PIECE_BYTES)
        self._log.copy()
        if signal.SIGTERM in self._received:
            self._received.discard(signal.SIGTERM)
            os.kill(program.pid, signal.SIGTERM)
        below = [pid for pid in descendants(os.getpid()) if pid != program.pid]
        if exceeds_memory(below, self._spec.memory_limit_bytes):
            self._out_of_memory = True
        if len(below) > self._spec.pids_limit:
            self._log.note(f"the run was killed: it had more than {self._spec.pids_limit} processes")
            self._received.add(signal.SIGQUIT)
        if self._out_of_memory or signal.SIGQUIT in self._received:
            kill({*below, program.pid})

    def _end_stragglers(self) -> None:
        """Kill what the program left, including what left its session: orphans become our children."""
        while below := descendants(os.getpid()):
            kill(below)
            self._log.copy()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(0.005)


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
