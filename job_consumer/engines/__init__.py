"""What runs containers, as the consumer sees it: the seam between deciding what to run and running it.

Each engine is a folder beside this file: `docker` and, for machines without Docker, `process`. An engine implements
`Engine`; one that can host replicas implements `ReplicaEngine`. Of ours this module imports only words: the
contract's, and those for networks.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import Protocol

from contract.schemas import Isolation, PullPolicy
from job_consumer.networks import Network, NetworkAccess, Publication

LABEL = "inference-server"
"""Prefix of the labels on all that an engine makes: `<LABEL>.server`, `.task` or `.replica`, `.fence`, `.consumer`."""


OnPull = Callable[[int], None]
"""Takes how many percent of an image have been pulled."""


class EngineError(Exception):
    """`detail` is for everyone, in sentences of ours. `str` adds what the engine said, for the operator's log alone.

    An engine quotes what it met in its host's network: told to users, it would scan that network for them.
    """

    def __init__(self, detail: str = "", said: str = "") -> None:
        super().__init__(f"{detail}: {said}" if said else detail)
        self.detail = detail


class EngineUnavailable(EngineError):
    """The engine does not answer, or failed for a reason other than the model. The attempt may be repeated."""


class EngineRefused(EngineUnavailable):
    """Nothing listens where the engine should."""


class CannotGuard(EngineError):
    """The engine cannot keep a run on a network from all else that is there, until somebody repairs that."""


class ImageNotFound(EngineError):
    """The image (or program) is absent and cannot be obtained. The detail says what was tried and what to do."""


class RunVanished(Exception):
    """The engine knows no run of this key: it was removed by someone else."""


class RunKind(StrEnum):
    """What a run is an attempt of; uids are unique within a kind."""

    TASK = "task"
    REPLICA = "replica"


@dataclass(frozen=True, order=True)
class RunKey:
    """Names one attempt: a server's task, or replica, under one fencing token."""

    uid: str
    fence: int
    kind: RunKind = RunKind.TASK
    server: str = ""
    """The server's id. Empty for a run of a release that had none, and where no server is."""

    @property
    def name(self) -> str:
        """The container's name. Deterministic, so that a second start of the same attempt conflicts."""
        kind = "" if self.kind is RunKind.TASK else f"{self.kind}-"
        server = f"{self.server}-" if self.server else ""
        return f"is-{server}{kind}{self.uid}-{self.fence}"


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
class ContainerSpec:
    """Everything that was decided about one run. A plain value."""

    key: RunKey
    consumer: str
    image: str
    isolation: Isolation
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
    network: NetworkAccess | None = None
    """With None it sees no network at all. Only replicas have one."""
    publication: Publication | None = None
    """How it is reached from hosts that do not reach its network."""
    runtime: str | None = None
    """The engine's runtime for it, by name; None is the engine's default."""


@dataclass(frozen=True)
class StoredImage:
    """An image on the engine's machine."""

    id: str
    size_bytes: int
    """With the layers that it shares."""
    digests: Mapping[str, str]
    """By the names of registries for it: `name@sha256:...`."""


class RunState(StrEnum):
    """How far an existing run has got."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


KILLED_CODE = 137
"""The exit code of what was ended with SIGKILL: 128 and the signal's number, as shells count."""


class Interruption(StrEnum):
    """What ended a run that did not end by itself: neither its exit code nor its output means anything then."""

    ENGINE = "engine"
    """The engine or its host was stopped or restarted."""
    OUTSIDE = "outside"
    """Somebody stopped or killed it; or it looks like that, and nobody saw its end."""


@dataclass(frozen=True)
class ExitState:
    """How a run ended."""

    exit_code: int
    out_of_memory: bool
    """Whether the kernel killed any process of the run for memory, even if the exit code is 0."""
    interruption: Interruption | None = None
    """None if the run ended by itself. Says nothing of a run that `Engine.stop` was called for."""


class Engine(Protocol):
    """Runs containers. Every call is safe from any thread and limited in time; each may raise `EngineUnavailable`."""

    def check(self) -> str:
        """One line that says which engine answers; raises `EngineUnavailable` when none does."""
        ...

    def host_name(self) -> str:
        """The name of the machine that the runs are on, as it calls itself."""
        ...

    def ensure_image(
        self, image: str, pull_policy: PullPolicy, on_progress: OnPull | None = None, *, has_run: bool = False
    ) -> None:
        """Make the image present as `pull_policy` says; `on_progress` is called while it is pulled, often.

        `has_run` says that it ran before, here or elsewhere. Raises `ImageNotFound` when it is absent and the registry
        says so, or when no registry can be reached in three tries and nothing says that it exists: it is not here and
        never ran. Raises `EngineUnavailable` when the registry of an image that exists cannot be reached, or when one
        was reached but is in trouble (5xx, 429).
        """
        ...

    def look_up_image(self, image: str, pull_policy: PullPolicy) -> tuple[bool, str | None]:
        """Whether the image is here, else a registry has it; and what that calls it, as `name@sha256:...`.

        Raises as `ensure_image` does, but asks a registry only once.
        """
        ...

    def start(self, spec: ContainerSpec) -> None:
        """Create and start the run. Repeating it starts a run that was only created, and never makes a second one.

        Raises `ImageNotFound` when the image vanished meanwhile or its command cannot be executed, and `CannotGuard`
        when its network is to be guarded and cannot be.
        """
        ...

    def find(self, consumer: str) -> list[tuple[RunKey, RunState]]:
        """Every run of a consumer of this name, whatever its state and server; also those of an earlier process."""
        ...

    def wait(self, key: RunKey, timeout_s: float) -> ExitState | None:
        """Wait until the run ends, at most `timeout_s`; None while it runs. Raises `RunVanished`."""
        ...

    def follow_log(self, key: RunKey, stop: Event) -> Iterator[bytes]:
        """The run's stdout and stderr in the order written, from the beginning, as far as its limit kept it.

        Ends with the run, or soon after `stop`. Raises `RunVanished` and all else when stepped, not when called.
        """
        ...

    def follow_output(self, key: RunKey, stop: Event) -> Iterator[bytes]:
        """What the run writes to stdout and stderr from now on, at once, where its log may keep a line until it ends.

        Whoever asks for it must read it without a pause: the run may wait for that. Ends and raises as `follow_log`.
        """
        ...

    def written_bytes(self, key: RunKey) -> int:
        """What the run has written so far, except to its mounts and to memory. Raises `RunVanished`."""
        ...

    def storage_dir(self) -> Path | None:
        """A folder on the disk that takes what `written_bytes` counts; None for that of the mounts."""
        ...

    def find_image(self, image: str) -> StoredImage | None:
        """The image of this name or id; None where there is none, and for an engine without images."""
        ...

    def ran_image(self, key: RunKey) -> str | None:
        """The image that the run is of: `name@sha256:...` or its id; None without images. Raises `RunVanished`."""
        ...

    def remove_image(self, image: str) -> bool:
        """Remove an image of this name or id; False if it is still needed."""
        ...

    def forget_folder(self, mount: Mount) -> bool:
        """Drop what is remembered of a kept mount, before its folder is removed; False while a run has it."""
        ...

    def stop(self, key: RunKey, grace_s: float) -> None:
        """Ask the run to end (TERM), and kill it after `grace_s`. Does nothing if there is no such run."""
        ...

    def remove(self, key: RunKey) -> None:
        """Remove the run and everything of it except kept mounts. Does nothing if there is no such run."""
        ...

    def close(self) -> None:
        """Release what this object holds; the runs continue."""
        ...


class ReplicaEngine(Engine, Protocol):
    """An engine whose runs can be called over a network, as replicas must be. No other is given a spec with one."""

    def find_network(self, name: str) -> Network | None:
        """The network of this name that runs can be put on."""
        ...

    def is_guarded(self, key: RunKey) -> bool:
        """Whether nothing passes between the run and its network but what its spec allows. Raises `RunVanished`."""
        ...

    def address(self, key: RunKey, port: int) -> str | None:
        """The `host:port` at which this port of the run is reached: on its network, or where it is published.

        None while it has no address. Raises `RunVanished`.
        """
        ...

    def environment(self, key: RunKey) -> Mapping[str, str]:
        """The variables that the run was started with, those of its image included. Raises `RunVanished`."""
        ...

    def log_tail(self, key: RunKey, max_bytes: int) -> bytes:
        """The last bytes of the run's stdout and stderr so far. Raises `RunVanished`."""
        ...
