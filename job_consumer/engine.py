"""What runs containers, as the consumer sees it: the seam between deciding what to run and running it.

Two implementations: `docker_engine` and, for machines without Docker, `process_engine`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import Protocol

LABEL = "inference-server"
"""Prefix of the labels on everything an engine makes: `<LABEL>.task` or `.replica`, `.fence`, `.consumer`."""


class EngineUnavailable(Exception):
    """The engine does not answer, or failed in a way that says nothing about the model. The attempt may be repeated."""


class ImageNotFound(Exception):
    """The image (or program) is not there and cannot be had. The text says what was tried and what to do."""


class RunVanished(Exception):
    """The engine knows no run of this key: somebody else removed it."""


class RunKind(StrEnum):
    """What a run is an attempt of; its uid is unique among its kind."""

    TASK = "task"
    REPLICA = "replica"


@dataclass(frozen=True, order=True)
class RunKey:
    """Names one attempt: a task, or a replica, under one fencing token."""

    uid: str
    fence: int
    kind: RunKind = RunKind.TASK

    @property
    def name(self) -> str:
        """The container's name. Deterministic, so that a second start of the same attempt conflicts."""
        kind = "" if self.kind is RunKind.TASK else f"{self.kind}-"
        return f"is-{kind}{self.uid}-{self.fence}"


@dataclass(frozen=True)
class Mount:
    """A folder of the consumer's work directory that the run sees at `target`."""

    volume: str
    """What the engine's name for it begins with."""
    folder: Path
    """Where this process sees it."""
    target: str
    read_only: bool
    kept: bool = False
    """Whether it outlives the run (the model's folder does)."""


@dataclass(frozen=True)
class Publication:
    """A TCP port of the run that is reached at an address of the engine's machine, at a port that is free there."""

    address: str
    port: int


@dataclass(frozen=True)
class Network:
    """A network that runs can be put on."""

    is_internal: bool
    """Whether it has no way outside; then no port of a run on it can be published either."""


@dataclass(frozen=True)
class ContainerSpec:
    """Everything about one run, decided; a value without I/O."""

    key: RunKey
    consumer: str
    image: str
    isolation: str
    """`strict` or `compatible`, see `contract.schemas.ModelRegistration`."""
    user: str | None
    """`uid:gid` inside the container; None is the image's own."""
    environment: Mapping[str, str]
    mounts: tuple[Mount, ...]
    gpu_uuid: str | None
    memory_limit_bytes: int
    cpu_limit: float | None
    """Cores; None is unlimited."""
    pids_limit: int
    shared_memory_bytes: int
    temporary_bytes: int
    """Size of the tmpfs at /tmp."""
    log_limit_bytes: int
    network: str | None = None
    """The only network it sees, by name; None is none at all."""
    publication: Publication | None = None
    """How it is reached from where nobody reaches its network."""


class RunState(StrEnum):
    """How far a run that was found got."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True)
class ExitState:
    """How a run ended."""

    exit_code: int
    out_of_memory: bool
    """Whether the kernel killed any process of the run for memory, even if the exit code is 0."""


class Engine(Protocol):
    """Runs containers. Every call is safe from any thread and limited in time; each may raise `EngineUnavailable`."""

    def check(self) -> str:
        """One line that says which engine answers; raises `EngineUnavailable` when none does."""
        ...

    def ensure_image(self, image: str, pull_policy: str) -> None:
        """Make the image present as `pull_policy` says (`missing`, `always`, `never`).

        Raises `ImageNotFound` when it is absent and the registry says so, or when no registry can be reached after
        three tries; `EngineUnavailable` when a registry was reached but is in trouble (5xx, 429).
        """
        ...

    def start(self, spec: ContainerSpec) -> None:
        """Create and start the run. Repeating it for a run that is there already starts it if need be, and no second.

        Raises `ImageNotFound` when the image vanished meanwhile or its command cannot be executed.
        """
        ...

    def find(self, consumer: str) -> list[tuple[RunKey, RunState]]:
        """Every run of this consumer that exists, whatever its state; also those of an earlier process."""
        ...

    def wait(self, key: RunKey, timeout_s: float) -> ExitState | None:
        """Hold until the run ends, at most `timeout_s`; None while it runs. Raises `RunVanished`."""
        ...

    def follow_log(self, key: RunKey, stop: Event) -> Iterator[bytes]:
        """The run's stdout and stderr in the order written, from the beginning, as far as its limit kept it.

        Ends with the run, or soon after `stop`. Raises `RunVanished` and all else when stepped, not when called.
        """
        ...

    def log_tail(self, key: RunKey, max_bytes: int) -> bytes:
        """The last bytes of the run's stdout and stderr so far. Raises `RunVanished`."""
        ...

    def find_network(self, name: str) -> Network | None:
        """The network of this name that runs can be put on; always None where the engine has none of its own."""
        ...

    def address(self, key: RunKey, port: int) -> str | None:
        """The `host:port` at which this port of the run is reached: on its network, or where it is published.

        None while there is none. Raises `RunVanished`.
        """
        ...

    def stop(self, key: RunKey, grace_s: float) -> None:
        """Ask the run to end (TERM), and end it (KILL) after `grace_s`. Nothing to do for a run that is not there."""
        ...

    def remove(self, key: RunKey) -> None:
        """Remove the run and everything of it except kept mounts. Nothing to do for a run that is not there."""
        ...

    def close(self) -> None:
        """Let go of what this object holds; the runs go on."""
        ...
