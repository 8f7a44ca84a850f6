"""Runs programs from the model's zip as processes of this machine, for machines without Docker.

A program of `container_tag=process:<path in the zip>` runs as the consumer's user, behind the walls that the machine
allows every user to build (`walls`), limited in memory, processes and log.
"""

import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

import job_consumer
from contract.schemas import PROCESS_TAG_PREFIX, PullPolicy
from job_consumer.descriptors import allocated_bytes
from job_consumer.engines import (
    ContainerSpec,
    EngineUnavailable,
    ExitState,
    ImageNotFound,
    Mount,
    OnPull,
    RunKey,
    RunState,
    RunVanished,
)
from job_consumer.engines.process.program import program_spec
from job_consumer.engines.process.run import RUN_VARIABLE, ProgramSpec, RunFolder, is_running_in, remove_discarded
from job_consumer.engines.process.tree import find_by_environment, kill
from job_consumer.engines.process.walls import Walls, find_walls

START_LIMIT_S = 30.0
KILL_LIMIT_S = 10.0
POLL_S = 0.05
PIECE_BYTES = 65536


class ProcessEngine:
    """Each run has a supervisor, a separate process that outlives the consumer; everything else is on disk."""

    def __init__(
        self, *, work_dir: Path, readable: Sequence[Path] = (), hidden: Sequence[Path] = (), walls: Walls | None = None
    ) -> None:
        """Programs may read the folders in `readable`, beside the system's, but nothing of `hidden` and `work_dir`.

        `walls` are those to build; by default all that this machine allows.
        """
        self._runs = work_dir.absolute() / "runs"
        self._readable = tuple(readable)
        self._hidden = (work_dir.absolute(), *hidden)
        self._walls = walls
        remove_discarded(self._runs)

    def close(self) -> None:
        """Does nothing: this object holds nothing."""

    def check(self) -> str:
        """Tries which walls stand here, at the first call."""
        return f"processes of this machine, confined by {self.walls().names()}"

    def walls(self) -> Walls:
        """What confines programs here. Raises `EngineUnavailable` if that cannot be found out."""
        if self._walls is None:
            self._walls = find_walls()
        return self._walls

    def host_name(self) -> str:
        """This machine's name."""
        return socket.gethostname()

    def ensure_image(
        self, image: str, pull_policy: PullPolicy, on_progress: OnPull | None = None, *, has_run: bool = False
    ) -> None:
        """Pulls nothing: whether the program is in the zip shows when it is started."""
        if not image.startswith(PROCESS_TAG_PREFIX):
            raise ImageNotFound(
                f"the image {image} does not run here, as this server runs programs without containers: start it "
                f"without --engine process, or register the model with container_tag={PROCESS_TAG_PREFIX}<program in "
                "its zip>"
            )

    def look_up_image(self, image: str, pull_policy: PullPolicy) -> tuple[bool, None]:
        """Looks up nothing."""
        self.ensure_image(image, pull_policy)
        return True, None

    def start(self, spec: ContainerSpec) -> None:
        """The run's lock decides: it is taken before the supervisor exists, which inherits it."""
        self.ensure_image(spec.image, PullPolicy.NEVER)
        run = self._run(spec.key)
        program = program_spec(spec, run, self.walls(), self._readable, self._hidden)
        deadline = time.monotonic() + START_LIMIT_S
        try:
            run.create(program)
            while run.pid() is None:
                with run.claim() as lock:
                    if lock is None:
                        # Another thread is starting it right now, or looking at it.
                        if time.monotonic() > deadline:
                            raise EngineUnavailable("the supervisor of the run does not come up")
                        time.sleep(POLL_S / 5)
                    elif run.pid() is None:
                        _spawn_supervisor(run, lock)
        except OSError as error:
            raise EngineUnavailable(f"the run cannot be started: {error}") from error

    def find(self, consumer: str) -> list[tuple[RunKey, RunState]]:
        """Reads the folders of the runs."""
        found = []
        for path in sorted(self._runs.glob("is-*")):
            run = RunFolder(path)
            with suppress(OSError, ValueError, TypeError, KeyError):
                program, state = ProgramSpec.from_json(run.spec.read_text()), run.state()
                if program.consumer == consumer and state is not None:
                    found.append((RunKey(program.uid, program.fence, server=program.server), state))
        return found

    def wait(self, key: RunKey, timeout_s: float) -> ExitState | None:
        """A run whose supervisor died without writing an exit counts as killed; what it left is killed."""
        run = self._run(key)
        deadline = time.monotonic() + timeout_s
        while True:
            state = _known_state(run, key)
            if state is RunState.EXITED:
                return _settle(run, key)
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            _hold(run, left_s)

    def follow_log(self, key: RunKey, stop: Event) -> Iterator[bytes]:
        """Reads the run's log file."""
        return self._follow(key, stop, os.SEEK_SET)

    def follow_output(self, key: RunKey, stop: Event) -> Iterator[bytes]:
        """As the log, which has everything at once."""
        return self._follow(key, stop, os.SEEK_END)

    def _follow(self, key: RunKey, stop: Event, whence: int) -> Iterator[bytes]:
        run = self._run(key)
        try:
            log = run.log.open("rb")
        except FileNotFoundError as error:
            raise RunVanished(key.name) from error
        with log:
            log.seek(0, whence)
            while not stop.is_set():
                # Asked before reading, so that what was written before the end is read.
                ended = run.state() in (RunState.EXITED, None)
                while not stop.is_set() and (piece := log.read(PIECE_BYTES)):
                    yield piece
                if ended:
                    return
                stop.wait(POLL_S)

    def written_bytes(self, key: RunKey) -> int:
        """Its HOME and TMPDIR, and its log. A program without walls may write to other places, unseen."""
        run = self._run(key)
        _known_state(run, key)
        return allocated_bytes(run.path)

    def storage_dir(self) -> None:
        """The runs are on the disk of the mounts."""

    def find_image(self, image: str) -> None:
        """There are no images."""

    def ran_image(self, key: RunKey) -> None:
        """There are no images."""

    def remove_image(self, image: str) -> bool:
        return True

    def forget_folder(self, mount: Mount) -> bool:
        """Nothing is remembered; a program may still run in the folder."""
        return not is_running_in(self._runs, mount.folder)

    def stop(self, key: RunKey, grace_s: float) -> None:
        """Signals the supervisor, which ends the whole tree of processes."""
        with suppress(RunVanished):
            for number, limit_s in ((signal.SIGTERM, grace_s), (signal.SIGQUIT, KILL_LIMIT_S)):
                run = self._run(key)
                _signal(run, number)
                if _known_state(run, key) is not RunState.RUNNING or self.wait(key, limit_s) is not None:
                    return

    def remove(self, key: RunKey) -> None:
        """A run that is still running is killed."""
        run = self._run(key)
        if run.state() is RunState.RUNNING:
            self.stop(key, 0)
        if run.path.exists():
            if not run.has_exit():
                _signal(run, signal.SIGKILL)
                kill(find_by_environment(RUN_VARIABLE, run.path.name))
            with suppress(FileNotFoundError):
                run.discard()

    def _run(self, key: RunKey) -> RunFolder:
        return RunFolder(self._runs / key.name)


def _spawn_supervisor(run: RunFolder, lock: int) -> None:
    """Returns once the supervisor is on its own and its pid is written."""
    with (run.path / "supervisor.log").open("ab") as log:
        try:
            subprocess.run(
                [sys.executable, "-P", "-m", "job_consumer.engines.process.supervisor", str(run.path), str(lock)],
                pass_fds=(lock,),
                env={"PYTHONPATH": str(Path(job_consumer.__path__[0]).parent)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                timeout=START_LIMIT_S,
                check=True,
            )
        except subprocess.SubprocessError as error:
            said = (run.path / "supervisor.log").read_text(errors="replace")[-500:]
            raise EngineUnavailable(f"the supervisor of the run failed: {error}: {said}") from error


def _known_state(run: RunFolder, key: RunKey) -> RunState:
    state = run.state()
    if state is None:
        raise RunVanished(key.name)
    return state


def _settle(run: RunFolder, key: RunKey) -> ExitState:
    """The exit of a run that has ended; kills what a killed supervisor left. Raises `RunVanished`."""
    if not run.has_exit():
        kill(find_by_environment(RUN_VARIABLE, run.path.name))
        # What is missing is read as the same exit.
        with suppress(OSError):
            run.write_exit(run.exit_state())
    ended = run.exit_state()
    # One that was discarded meanwhile looks like one that was killed.
    _known_state(run, key)
    return ended


def _hold(run: RunFolder, limit_s: float) -> None:
    """Wait for the supervisor's end, or for a moment if it cannot be watched."""
    with _supervisor(run) as descriptor:
        if descriptor is None:
            time.sleep(min(limit_s, POLL_S))
        else:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(math.ceil(limit_s * 1000))


def _signal(run: RunFolder, number: signal.Signals) -> None:
    if sys.platform == "linux":
        with _supervisor(run) as descriptor, suppress(ProcessLookupError):
            if descriptor is not None:
                signal.pidfd_send_signal(descriptor, number)
    elif run.is_held() and (pid := run.pid()) is not None:
        os.kill(pid, number)


@contextmanager
def _supervisor(run: RunFolder) -> Iterator[int | None]:
    """A descriptor of the living supervisor; None if it is dead, or if the system has no such descriptors."""
    pid = run.pid()
    if sys.platform != "linux" or pid is None:
        yield None
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # Asked after opening: while the lock is held, the pid cannot have passed to another process.
        yield descriptor if run.is_held() else None
    finally:
        os.close(descriptor)
