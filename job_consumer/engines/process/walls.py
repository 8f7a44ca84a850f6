"""What confines programs on this machine: found by trying, as no version of Linux says what a user may do.

`python -m job_consumer.engines.process.walls` tries each wall, in processes that end with it, and prints the answer.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import job_consumer
from job_consumer.engines import EngineUnavailable
from job_consumer.engines.process.landlock import SCOPE_SINCE, TCP_SINCE, TRUNCATE_SINCE, landlock_abi, restrict_files
from job_consumer.engines.process.namespace import enter_view, leave_machine
from job_consumer.engines.process.seccomp import OWN_NETWORK, refuse_calls
from job_consumer.engines.process.system_calls import drop_capabilities, prctl
from job_consumer.engines.process.view import device_files, readable_paths

PR_SET_NO_NEW_PRIVS = 38
MAX_OPEN_FILES = 16384
_TRY_LIMIT_S = 60
_MIB = 1024**2


@dataclass(frozen=True)
class Walls:
    """Which walls stand here. Without any a run has what its user has."""

    namespace: bool = False
    """A view of its own: files, processes, network."""
    landlock: int = 0
    """The ABI of Landlock; 0 for no Landlock."""
    seccomp: bool = False

    def confine(self, readable: list[Path], writable: list[Path]) -> None:
        """Confine this process, which has one thread, and all that it starts, for good. Raises `OSError`.

        It may be in its namespaces already; the paths are as it sees them.
        """
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = MAX_OPEN_FILES if most == resource.RLIM_INFINITY else min(most, MAX_OPEN_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        if sys.platform != "linux":
            return
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        drop_capabilities()
        if self.landlock:
            restrict_files(self.landlock, readable, writable, tcp=self.namespace)
        if self.seccomp:
            # Without a network of its own it gets no network, and no socket of a service of this machine, either.
            refuse_calls(OWN_NETWORK if self.namespace else ())

    def names(self) -> str:
        """In the words of Linux's documentation."""
        names = ["namespaces"] if self.namespace else []
        names += [f"Landlock {self.landlock}"] if self.landlock else []
        names += ["seccomp"] if self.seccomp else []
        return ", ".join(names) or "nothing"

    def gaps(self) -> list[str]:
        """What a program can do here that a wall keeps it from elsewhere."""
        return list(self._gaps())

    def _gaps(self) -> Iterator[str]:
        if not self.namespace:
            if not self.landlock:
                yield "read and change all files of this user, the server's data and keys included"
            else:
                yield "see the names, sizes and modes of this user's files, and change modes"
                yield "read what this user's programs share in /dev/shm"
            if 0 < self.landlock < TRUNCATE_SINCE:
                yield "empty this user's files"
            if self.landlock < SCOPE_SINCE:
                yield "end this user's processes, the server included"
            if not self.seccomp:
                by = "by UDP and the sockets of this machine's services" if self.landlock >= TCP_SINCE else "freely"
                yield f"use the network {by}"
        if not self.seccomp:
            yield "make system calls that a computation has no use for, AF_VSOCK sockets among them"


def find_walls() -> Walls:
    """The walls of this machine, by trying them. Raises `EngineUnavailable` if that fails."""
    if sys.platform != "linux":
        return Walls()
    try:
        answer = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            env={"PYTHONPATH": str(Path(job_consumer.__path__[0]).parent)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TRY_LIMIT_S,
            check=False,
        )
        return Walls(**json.loads(answer.stdout))
    except ValueError as error:
        said = answer.stderr.strip().rpartition("\n")[2]
        raise EngineUnavailable(f"it cannot be found out what confines programs here: {said}") from error
    except (subprocess.SubprocessError, OSError) as error:
        raise EngineUnavailable(f"it cannot be found out what confines programs here: {error}") from error


def _try_all() -> Walls:
    abi = landlock_abi()
    with tempfile.TemporaryDirectory() as root:
        return Walls(
            namespace=_works(lambda: _try_namespace(Path(root))),
            landlock=abi if _works(lambda: Walls(landlock=abi).confine([Path("/usr")], [])) else 0,
            seccomp=_works(lambda: Walls(seccomp=True).confine([], [])),
        )


def _try_namespace(root: Path) -> None:
    leave_machine()
    view = readable_paths([], [])
    if not _works(lambda: enter_view(root, [], view, device_files(gpu=False), shm_bytes=_MIB)):
        raise OSError("namespaces, but no view")


def _works(attempt: Callable[[], None]) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


if __name__ == "__main__":
    print(json.dumps(asdict(_try_all())))  # noqa: T201
