"""Decides what to run for an assignment. Pure: no I/O, so every rule here is a unit test."""

from collections.abc import Mapping
from dataclasses import dataclass

from contract.deployments import ReplicaAssignment
from contract.schemas import Assignment
from job_consumer.engine import ContainerSpec, Mount, Publication, RunKey
from job_consumer.workspace import ModelFolder, Workspace

SANDBOX_USER = "65532:65532"
"""The conventional `nonroot` of distroless images: no account of a host has it."""


@dataclass(frozen=True)
class Limits:
    """What one run may take of this host."""

    memory_bytes: int
    cpus: float | None
    pids: int
    shared_memory_bytes: int
    temporary_bytes: int
    log_bytes: int


def decide_container(
    assignment: Assignment,
    *,
    consumer: str,
    workspace: Workspace,
    model: ModelFolder | None,
    limits: Limits,
    gpu_uuid: str | None,
    own_user: str | None,
) -> ContainerSpec:
    """The container of one attempt; the rest as `decide_sandbox` takes it."""
    key = RunKey(assignment.uid, assignment.fence)
    return decide_sandbox(
        assignment,
        key=key,
        environment={
            "TASK_UID": assignment.uid,
            "INPUT_DIR": "/input",
            "OUTPUT_DIR": "/output",
            "MODEL_DIR": "/model",
        },
        mounts=[
            Mount(f"{key.name}-input", workspace.input_dir, "/input", read_only=True),
            Mount(f"{key.name}-output", workspace.output_dir, "/output", read_only=False),
        ],
        consumer=consumer,
        model=model,
        limits=limits,
        gpu_uuid=gpu_uuid,
        own_user=own_user,
    )


def decide_sandbox(
    assignment: Assignment | ReplicaAssignment,
    *,
    key: RunKey,
    environment: Mapping[str, str],
    mounts: list[Mount],
    consumer: str,
    model: ModelFolder | None,
    limits: Limits,
    gpu_uuid: str | None,
    own_user: str | None,
    network: str | None = None,
    publication: Publication | None = None,
) -> ContainerSpec:
    """What every container of a model has in common.

    `own_user` is `uid:gid` of a consumer that is not root: it could not remove files of another user, so the run gets
    its own. `gpu_uuid` is given to the run only where the model asks for a GPU.
    """
    strict = assignment.isolation == "strict"
    memory = memory_limit(assignment, limits)
    home = {"HOME": "/tmp"} if strict else {}  # noqa: S108 - the tmpfs of the run, not the host's
    if model is not None:
        mounts = [*mounts, Mount(f"is-model-{model.sha256}", model.folder, "/model", read_only=True, kept=True)]
    return ContainerSpec(
        key=key,
        consumer=consumer,
        image=assignment.container_tag,
        isolation=assignment.isolation,
        user=own_user or (SANDBOX_USER if strict else None),
        environment={**environment, **home},
        mounts=tuple(mounts),
        gpu_uuid=gpu_uuid if assignment.use_gpu else None,
        memory_limit_bytes=memory,
        cpu_limit=limits.cpus,
        pids_limit=limits.pids,
        shared_memory_bytes=min(limits.shared_memory_bytes, memory),
        temporary_bytes=limits.temporary_bytes,
        log_limit_bytes=limits.log_bytes,
        network=network,
        publication=publication,
    )


def memory_limit(assignment: Assignment | ReplicaAssignment, limits: Limits) -> int:
    """Bytes the run may take: the model's wish, within what the host gives."""
    return min(assignment.memory_limit_bytes or limits.memory_bytes, limits.memory_bytes)
