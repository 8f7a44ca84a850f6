"""Runs programs from the model's zip as processes of this machine, where there is no Docker. No sandbox.

A program of `container_tag=process:<path in the zip>` sees the folders a container sees, where Linux allows namespaces.
It has the consumer's user, and no limits but those on memory, processes and log.
"""

import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from threading import Event

import job_consumer
from contract.schemas import PROCESS_TAG_PREFIX
from job_consumer.engine import (
    ContainerSpec,
    EngineUnavailable,
    ExitState,
    ImageNotFound,
    Network,
    RunKey,
    RunState,
    RunVanished,
)
from job_consumer.process_run import RUN_VARIABLE, Folder, ProgramSpec, RunFolder
from job_consumer.process_tree import find_by_environment, kill
from job_consumer.workspace import remove_tree

START_LIMIT_S = 30.0
KILL_LIMIT_S = 10.0
POLL_S = 0.05
PIECE_BYTES = 65536
MODEL = "/model"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProcessEngine:
    """Each run has a supervisor, a process of its own that outlives the consumer; everything else is on disk."""

    def __init__(self, *, work_dir: Path) -> None:
        self._runs = work_dir.absolute() / "runs"

    def close(self) -> None:
        """Holds nothing."""

    def check(self) -> str:
        """Always there."""
        return "processes of this machine, without isolation"

    def ensure_image(self, image: str, pull_policy: str) -> None:
        """Nothing is pulled: whether the program is in the zip shows at the start."""
        if not image.startswith(PROCESS_TAG_PREFIX):
            raise ImageNotFound(
                f"no Docker Engine runs the image {image} here: install Docker, "
                f"or register the model with container_tag={PROCESS_TAG_PREFIX}<program in its zip>"
            )

    def start(self, spec: ContainerSpec) -> None:
        """The run's lock decides: it is taken before the supervisor exists, and inherited by it."""
        self.ensure_image(spec.image, "never")
        run = self._run(spec.key)
        program = _program_spec(spec, run)
        deadline = time.monotonic() + START_LIMIT_S
        try:
            run.create(program)
            while run.pid() is None:
                with run.claim() as lock:
                    if lock is None:
                        # Another thread is just starting it, or looking.
                        if time.monotonic() > deadline:
                            raise EngineUnavailable("the supervisor of the run does not come up")
                        time.sleep(POLL_S / 5)
                    elif run.pid() is None:
                        _spawn_supervisor(run, lock)
        except OSError as error:
            raise EngineUnavailable(f"the run cannot be started: {error}") from error

    def find(self, consumer: str) -> list[tuple[RunKey, RunState]]:
        """From the folders of the runs."""
        found = []
        for path in sorted(self._runs.glob("is-*")):
            run = RunFolder(path)
            with suppress(OSError, ValueError, TypeError, KeyError):
                program, state = ProgramSpec.from_json(run.spec.read_text()), run.state()
                if program.consumer == consumer and state is not None:
                    found.append((RunKey(program.uid, program.fence), state))
        return found

    def wait(self, key: RunKey, timeout_s: float) -> ExitState | None:
        """A supervisor that died without a word counts as a killed run; what it left is killed."""
        run = self._run(key)
        deadline = time.monotonic() + timeout_s
        while True:
            state = _known_state(run, key)
            if state is RunState.EXITED:
                return _settle(run)
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            _hold(run, left_s)

    def follow_log(self, key: RunKey, stop: Event) -> Iterator[bytes]:
        """From the file."""
        run = self._run(key)
        try:
            log = run.log.open("rb")
        except FileNotFoundError as error:
            raise RunVanished(key.name) from error
        with log:
            while not stop.is_set():
                # Asked before reading: what was written before the end is then read.
                ended = run.state() in (RunState.EXITED, None)
                while not stop.is_set() and (piece := log.read(PIECE_BYTES)):
                    yield piece
                if ended:
                    return
                stop.wait(POLL_S)

    def log_tail(self, key: RunKey, max_bytes: int) -> bytes:
        """From the file."""
        run = self._run(key)
        _known_state(run, key)
        with run.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - max_bytes))
            return log.read(max_bytes)

    def find_network(self, name: str) -> Network | None:
        """Processes have the machine's network or none."""
        return None

    def address(self, key: RunKey, port: int) -> str | None:
        """None, for want of a network."""
        _known_state(self._run(key), key)
        return None

    def stop(self, key: RunKey, grace_s: float) -> None:
        """Through the supervisor, which ends the whole tree of processes."""
        with suppress(RunVanished):
            for number, limit_s in ((signal.SIGTERM, grace_s), (signal.SIGQUIT, KILL_LIMIT_S)):
                run = self._run(key)
                _signal(run, number)
                if _known_state(run, key) is not RunState.RUNNING or self.wait(key, limit_s) is not None:
                    return

    def remove(self, key: RunKey) -> None:
        """Kills what runs."""
        run = self._run(key)
        if run.state() is RunState.RUNNING:
            self.stop(key, 0)
        if run.path.exists():
            if not run.has_exit():
                _signal(run, signal.SIGKILL)
                kill(find_by_environment(RUN_VARIABLE, run.path.name))
            with suppress(FileNotFoundError):
                remove_tree(run.path)

    def _run(self, key: RunKey) -> RunFolder:
        return RunFolder(self._runs / key.name)


def _program_spec(spec: ContainerSpec, run: RunFolder) -> ProgramSpec:
    folders = [Folder(str(mount.folder), mount.target, mount.read_only) for mount in spec.mounts]
    model = next((folder for folder in folders if folder.target == MODEL), None)
    path = spec.image.removeprefix(PROCESS_TAG_PREFIX)
    if model is None:
        raise ImageNotFound(f"{spec.image} names a program in the model's zip, but the model has none")
    return ProgramSpec(
        uid=spec.key.uid,
        fence=spec.key.fence,
        consumer=spec.consumer,
        interpreter=_interpreter(Path(model.source), path),
        program=path,
        model=model,
        folders=folders,
        environment=_environment(spec, run),
        memory_limit_bytes=spec.memory_limit_bytes,
        pids_limit=spec.pids_limit,
        log_limit_bytes=spec.log_limit_bytes,
    )


def _interpreter(model: Path, path: str) -> list[str]:
    """What runs the program; nothing for a file that runs itself."""
    program = model / path
    if PurePosixPath(path).is_absolute() or not program.resolve().is_relative_to(model.resolve()):
        raise ImageNotFound(f"{path} leads out of the model's zip: give a path in it, without ..")
    if not program.is_file():
        raise ImageNotFound(f"the model's zip has no file {path}")
    if program.suffix == ".py":
        return [sys.executable]
    if os.access(program, os.X_OK):
        return []
    # Many tools write zips without the executable bit.
    with program.open("rb") as file:
        first = file.readline(256)
    if not first.startswith(b"#!"):
        raise ImageNotFound(f"{path} in the model's zip is neither executable, nor *.py, nor begins with #!")
    return first[2:].decode(errors="replace").strip().split(maxsplit=1)


def _environment(spec: ContainerSpec, run: RunFolder) -> dict[str, str]:
    """Nothing of the consumer's own, which holds its secrets."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
        "LANG": "C.UTF-8",
        **spec.environment,
        "HOME": str(run.temporary),
        "TMPDIR": str(run.temporary),
        "NVIDIA_VISIBLE_DEVICES": spec.gpu_uuid or "void",
        "CUDA_VISIBLE_DEVICES": spec.gpu_uuid or "",
        RUN_VARIABLE: run.path.name,
    }


def _spawn_supervisor(run: RunFolder, lock: int) -> None:
    """Returns once the supervisor is on its own and its pid is written."""
    with (run.path / "supervisor.log").open("ab") as log:
        try:
            subprocess.run(
                [sys.executable, "-P", "-m", "job_consumer.process_supervisor", str(run.path), str(lock)],
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


def _settle(run: RunFolder) -> ExitState:
    """The exit of a run that ended, and the end of what a killed supervisor left."""
    if not run.has_exit():
        kill(find_by_environment(RUN_VARIABLE, run.path.name))
        with suppress(FileNotFoundError):
            run.write_exit(run.exit_state())
    return run.exit_state()


def _hold(run: RunFolder, limit_s: float) -> None:
    """Wait for the supervisor's end, or a little."""
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
    """A descriptor of the living supervisor; None where there is none, or where the system has no such thing."""
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
        # Asked after opening: while the lock is held the pid cannot have become somebody else's.
        yield descriptor if run.is_held() else None
    finally:
        os.close(descriptor)
