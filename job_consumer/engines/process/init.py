"""Starts a run's first process, its init: it builds the walls around itself, then starts the program and waits for it.

The program is not the first process itself, which in a namespace would ignore signals that it has no handler for, and
would have to wait for every process that loses its parent.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from job_consumer.engines.process.namespace import enter_view, leave_machine
from job_consumer.engines.process.program import SYSTEM_PATH
from job_consumer.engines.process.run import ProgramSpec
from job_consumer.engines.process.tree import die_with_parent
from job_consumer.engines.process.view import device_files, readable_paths
from job_consumer.engines.process.walls import MAX_OPEN_FILES

CANNOT_EXECUTE = 127
_READY = "ready"
_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ)
_HANDLED_BY_SUPERVISOR = {signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD}


class CannotConfine(OSError):
    """A wall that stands on this machine could not be built around this run."""


def start_init(spec: ProgramSpec, root: Path, output: int) -> int:
    """Start the run's init, whose child the program is, and return its pid; it ends as the program does.

    `root` is an empty folder for its view of the machine, `output` where program and init write to. TERM is passed on
    to the program's process group. The caller adopts orphans where Linux lets it. Raises `CannotConfine`.
    """
    report, report_end = os.pipe()
    go_end, go = os.pipe()
    # Until the init has handlers of its own, it must not run the supervisor's.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED_BY_SUPERVISOR)
    try:
        pid = os.fork()
        if pid == 0:
            start = _leave if spec.walls.namespace else _init
            _end_as(lambda: start(spec, root, output, report_end, (go_end, go)))
        for descriptor in (report_end, go_end):
            os.close(descriptor)
        with os.fdopen(report) as answers:
            if spec.walls.namespace:
                os.waitpid(pid, 0)
                pid = int(answers.readline() or 0)
            # Only now is the init our child, so that it can ask to die with us.
            with suppress(BrokenPipeError):
                os.write(go, b"\n")
            if (answer := answers.readline().strip()) != _READY:
                raise CannotConfine(answer or "its first process does not come up")
        return pid
    finally:
        os.close(go)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED_BY_SUPERVISOR)


def _end_as(body: Callable[[], int]) -> NoReturn:
    """A forked process never returns into the code of its parent."""
    code = 1
    try:
        code = body()
    finally:
        os._exit(code)


def _leave(spec: ProgramSpec, root: Path, output: int, report: int, go: tuple[int, int]) -> int:
    """The starter: its child is the first process of the namespaces."""
    try:
        if spec.walls.namespace:
            leave_machine()
        pid = os.fork()
    except OSError as error:
        os.write(report, f"0\n{_said(error)}\n".encode())
        return 1
    if pid == 0:
        _end_as(lambda: _init(spec, root, output, report, go))
    os.write(report, f"{pid}\n".encode())
    return 0


def _said(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _init(spec: ProgramSpec, root: Path, output: int, report: int, go: tuple[int, int]) -> int:
    # Without its own end of it, it sees the end of a supervisor that was killed meanwhile.
    os.close(go[1])
    if not os.read(go[0], 1):
        return 1
    die_with_parent()
    try:
        _arrange_descriptors(output, report)
        command, folder, environment = _confine(spec, root)
    except (OSError, ValueError) as error:
        os.write(report, f"{_said(error)}\n".encode())
        return 1
    os.write(report, f"{_READY}\n".encode())
    os.close(report)
    program = os.fork()
    if program == 0:
        _end_as(lambda: _execute(command, folder, environment))
    return _wait_for(program)


def _arrange_descriptors(output: int, report: int) -> None:
    """Keep nothing else that the supervisor has open: its lock, its log, its pipes."""
    null = os.open(os.devnull, os.O_RDONLY)
    for target, descriptor in enumerate((null, output, output)):
        os.dup2(descriptor, target)
    os.closerange(3, report)
    os.closerange(report + 1, MAX_OPEN_FILES)


def _confine(spec: ProgramSpec, root: Path) -> tuple[list[str], str, dict[str, str]]:
    """Build the walls; the program's command, folder and environment, in which paths are as it sees them."""
    readable = readable_paths(spec.readable, spec.hidden)
    devices = device_files(gpu=spec.has_gpu)
    own = spec.folders
    if spec.walls.namespace:
        enter_view(root, own, readable, devices, shm_bytes=spec.shared_memory_bytes)
        places = {folder.target: folder.target for folder in own}
        devices = [Path("/dev")]
    else:
        places = {folder.target: folder.source for folder in own}
        devices += [Path("/dev/shm")]  # noqa: S108 - where semaphores are
    readable += [Path(places[folder.target]) for folder in own if folder.read_only]
    writable = [Path(places[folder.target]) for folder in own if not folder.read_only]
    spec.walls.confine([*readable, Path("/proc")], [*writable, *devices])
    model = places[spec.model.target]
    environment = {name: _in_places(places, value) for name, value in spec.environment.items()}
    environment["PATH"] = spec.environment.get("PATH", SYSTEM_PATH)
    return [*spec.interpreter, f"{model}/{spec.program}"], model, environment


def _in_places(places: dict[str, str], value: str) -> str:
    """Where the run sees a path in one of its folders; any other value as it is."""
    for target, place in places.items():
        if value == target or value.startswith(f"{target}/"):
            return place + value.removeprefix(target)
    return value


def _execute(command: list[str], folder: str, environment: dict[str, str]) -> int:
    die_with_parent()
    os.setsid()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED_BY_SUPERVISOR)
    try:
        os.chdir(folder)
        os.execvpe(command[0], command, environment)  # noqa: S606 - a shell is what it must not be
    except OSError as error:
        os.write(1, f"\n[the program cannot be executed: {error}]\n".encode())
    return CANNOT_EXECUTE


def _wait_for(program: int) -> int:
    """How the program ended, as a shell says it. Meanwhile TERM is passed on, and orphans end in peace."""

    def pass_on(*_: object) -> None:
        try:
            os.killpg(program, signal.SIGTERM)
        except ProcessLookupError:
            # It has no group yet.
            with suppress(ProcessLookupError):
                os.kill(program, signal.SIGTERM)

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, pass_on)
    for number in (signal.SIGQUIT, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED_BY_SUPERVISOR)
    while True:
        pid, status = os.wait()
        if pid == program:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
