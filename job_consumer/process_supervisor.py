"""`python -m job_consumer.process_supervisor <run folder> <lock descriptor>`: runs one program and outlives the consumer.

TERM asks the program to end, QUIT ends it. Nothing of the program is left when its exit is written.
"""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from job_consumer.engine import ExitState
from job_consumer.process_namespace import enter_namespace
from job_consumer.process_run import ProgramSpec, RunFolder
from job_consumer.process_tree import adopt_orphans, descendants, die_with_parent, exceeds_memory, kill

CHECK_S = 0.1
"""Between two looks at the memory of a run."""
PIECE_BYTES = 65536
CANNOT_EXECUTE = 127


class Supervisor:
    """One run, from its program's start to its last process's end. Single-threaded."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._spec = ProgramSpec.from_json(folder.spec.read_text())
        self._received: set[int] = set()
        self._out_of_memory = False
        self._log_left = self._spec.log_limit_bytes
        self._wake, wake_end = os.pipe()
        for end in (self._wake, wake_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD):
            signal.signal(number, self._receive)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def run(self) -> None:
        """Returns when the exit is written."""
        adopt_orphans()
        with self._folder.log.open("ab", buffering=0) as self._log:
            try:
                program = self._spawn()
            except OSError as error:
                self._note(f"the program cannot be executed: {error}")
                self._folder.write_exit(ExitState(CANNOT_EXECUTE, out_of_memory=False))
                return
            with program:
                while program.poll() is None:
                    self._turn(program)
                self._end_stragglers(program.pid)
                self._copy_log(program)
        code = program.returncode if program.returncode >= 0 else 128 - program.returncode
        self._folder.write_exit(ExitState(code, self._out_of_memory))

    def _spawn(self) -> subprocess.Popen[bytes]:
        try:
            return self._spawn_with(self._spec.model.target, self._spec.environment, self._enter)
        except subprocess.SubprocessError:
            # No namespaces here: the variables name the real folders instead.
            sources = {folder.target: folder.source for folder in self._spec.folders}
            environment = {name: sources.get(value, value) for name, value in self._spec.environment.items()}
            return self._spawn_with(self._spec.model.source, environment, die_with_parent)

    def _spawn_with(self, model: str, environment: dict[str, str], prepare: object) -> subprocess.Popen[bytes]:
        program = subprocess.Popen(
            [*self._spec.interpreter, os.path.join(model, self._spec.program)],  # noqa: PTH118 - a path of the run
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=self._spec.model.source,
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509 - this process has one thread
        )
        assert program.stdout is not None  # noqa: S101 - it is a pipe
        os.set_blocking(program.stdout.fileno(), False)
        return program

    def _enter(self) -> None:
        root = self._folder.path / "root"
        root.mkdir(exist_ok=True)
        enter_namespace(root, self._spec.folders)
        os.chdir(self._spec.model.target)
        die_with_parent()

    def _turn(self, program: subprocess.Popen[bytes]) -> None:
        """Wait for the next thing to happen, at most `CHECK_S`, and see to it."""
        select.select([program.stdout, self._wake], [], [], CHECK_S)
        try:
            os.read(self._wake, PIECE_BYTES)
        except BlockingIOError:
            pass
        self._copy_log(program)
        below = descendants(os.getpid())
        if signal.SIGTERM in self._received:
            self._received.discard(signal.SIGTERM)
            os.killpg(program.pid, signal.SIGTERM)
        if exceeds_memory(below, self._spec.memory_limit_bytes):
            self._out_of_memory = True
        if len(below) > self._spec.pids_limit:
            self._note(f"the run was killed: it had more than {self._spec.pids_limit} processes")
            self._received.add(signal.SIGQUIT)
        if self._out_of_memory or signal.SIGQUIT in self._received:
            kill({*below, program.pid})
