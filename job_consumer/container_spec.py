"""Decides what to run for an assignment. Pure: no I/O, so every rule here is a unit test."""

from collections.abc import Mapping
from dataclasses import dataclass

from contract.schemas import Assignment, Isolation, RunAssignment
from job_consumer.engines import ContainerSpec, Mount, RunKey
from job_consumer.networks import NetworkAccess, Publication
from job_consumer.settings import MAX_PIDS, SCRATCH_BYTES, LimitSettings
from job_consumer.workspace import PROGRESS_NAME, ModelFolder, Workspace
from kit.disk import DISK_RESERVE_BYTES

SANDBOX_USER = "65532:65532"
"""The conventional `nonroot` of distroless images: no account of a host has it."""
SANDBOX_USER_NAME = "nonroot"
PROGRESS = "/progress"


@dataclass(frozen=True)
class Limits:
    """What one run may take of this host: `limits_of_run` says what it gets."""

    memory_bytes: int
    """The most, and what a model has that asks for nothing."""
    cpus: float | None
    """Likewise; None is all that there are."""
    pids: int
    """What a model has that asks for nothing."""
    shared_memory_bytes: int
    """Likewise. The most is the run's memory, of which it is a part."""
    temporary_bytes: int
    """Likewise."""
    log_bytes: int
    scratch_bytes: int = SCRATCH_BYTES
    """What it may write beside /output, /tmp and /dev/shm."""
    disk_reserve_bytes: int = DISK_RESERVE_BYTES
    """What it must leave free on its disks."""
    max_pids: int = MAX_PIDS
    """What a model may ask for; `pids`, if that is more."""


def limits_of(settings: LimitSettings) -> Limits:
    """The limits that the settings name."""
    return Limits(
        memory_bytes=settings.memory_limit_bytes,
        cpus=settings.cpu_limit,
        pids=settings.pids_limit,
        shared_memory_bytes=settings.shared_memory_bytes,
        temporary_bytes=settings.temporary_bytes,
        log_bytes=settings.container_log_bytes,
        scratch_bytes=settings.scratch_bytes,
        disk_reserve_bytes=settings.disk_reserve_bytes,
        max_pids=settings.max_pids,
    )


@dataclass(frozen=True)
class RunLimits:
    """What one run gets: what its model asks for, or else the host's default, within what the host allows."""

    memory_bytes: int
    cpus: float | None
    pids: int
    may_have_more_pids: bool
    """Whether the host would give more, were its model to ask."""
    shared_memory_bytes: int
    temporary_bytes: int


def limits_of_run(assignment: RunAssignment, limits: Limits) -> RunLimits:
    """The limits of a run on this host. A model that asks for more than the host allows gets what it allows."""
    memory_bytes = min(assignment.memory_limit_bytes or limits.memory_bytes, limits.memory_bytes)
    most_pids = max(limits.max_pids, limits.pids)
    pids = min(assignment.pids_limit or limits.pids, most_pids)
    return RunLimits(
        memory_bytes=memory_bytes,
        cpus=min((cpus for cpus in (assignment.cpus, limits.cpus) if cpus), default=None),
        pids=pids,
        may_have_more_pids=pids < most_pids,
        shared_memory_bytes=min(assignment.shared_memory_bytes or limits.shared_memory_bytes, memory_bytes),
        temporary_bytes=min(assignment.temporary_bytes or limits.temporary_bytes, memory_bytes),
    )


@dataclass(frozen=True)
class Sandbox:
    """What one consumer gives to its containers and holds back from them; decided once, at its start."""

    consumer: str
    limits: Limits
    server: str = ""
    """The id of the server, which it tells when the consumer registers."""
    gpu_uuid: str | None = None
    """Given to a run only if its model asks for a GPU."""
    own_user: str | None = None
    """`uid:gid` of a consumer that is not root: it cannot remove another user's files, so its runs have this user."""
    network: str | None = None
    """The engine's network that replicas are on; None if this consumer hosts none. Tasks never have a network."""
    publish_address: str | None = None
    """The address of this host that gateways reach replicas at; None if they reach the network itself."""


def decide_container(
    key: RunKey, assignment: Assignment, sandbox: Sandbox, workspace: Workspace, model: ModelFolder | None
) -> ContainerSpec:
    """The container of one attempt."""
    return decide_run(
        assignment,
        sandbox,
        model,
        key=key,
        environment={
            "TASK_UID": assignment.uid,
            "INPUT_DIR": "/input",
            "OUTPUT_DIR": "/output",
            "MODEL_DIR": "/model",
            "PROGRESS_FILE": f"{PROGRESS}/{PROGRESS_NAME}",
        },
        mounts=[
            Mount(f"{key.name}-input", workspace.input_dir, "/input", read_only=True),
            Mount(f"{key.name}-output", workspace.output_dir, "/output", read_only=False),
            Mount(f"{key.name}-progress", workspace.progress_dir, PROGRESS, read_only=False),
        ],
    )


def decide_run(
    assignment: RunAssignment,
    sandbox: Sandbox,
    model: ModelFolder | None,
    *,
    key: RunKey,
    environment: Mapping[str, str],
    mounts: list[Mount],
    network: NetworkAccess | None = None,
    publication: Publication | None = None,
) -> ContainerSpec:
    """What the containers of tasks and of replicas have in common, around what differs."""
    strict = assignment.isolation == Isolation.STRICT
    limits = limits_of_run(assignment, sandbox.limits)
    # The user has no account in the image, where programs would look both up.
    account = {"HOME": "/tmp", "USER": SANDBOX_USER_NAME} if strict else {}  # noqa: S108 - the tmpfs of the run
    if model is not None:
        mounts = [*mounts, model.mount]
    return ContainerSpec(
        key=key,
        consumer=sandbox.consumer,
        image=assignment.container_tag,
        isolation=assignment.isolation,
        user=sandbox.own_user or (SANDBOX_USER if strict else None),
        environment={**environment, **account},
        mounts=tuple(mounts),
        gpu_uuid=sandbox.gpu_uuid if assignment.use_gpu else None,
        memory_limit_bytes=limits.memory_bytes,
        cpu_limit=limits.cpus,
        pids_limit=limits.pids,
        shared_memory_bytes=limits.shared_memory_bytes,
        temporary_bytes=limits.temporary_bytes,
        log_limit_bytes=sandbox.limits.log_bytes,
        network=network,
        publication=publication,
        runtime=assignment.runtime,
    )
