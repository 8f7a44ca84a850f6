"""Decides how a replica is hosted: its container, and where it finds a task's files. Pure: no I/O."""

from contract.deployments import ReplicaAssignment, ReplicaReason
from job_consumer.container_spec import Sandbox, decide_run
from job_consumer.engines import ContainerSpec, Mount, RunKey
from job_consumer.networks import NetworkAccess, Publication
from job_consumer.replicas.endings import ReplicaEnded
from job_consumer.workspace import ModelFolder, ReplicaFolder

GATEWAY = "GRPC_GATEWAY"
"""The variable that tells a container where to call others."""
INPUTS = "/tasks/input"
OUTPUTS = "/tasks/output"
PROGRESS = "/tasks/progress"


def model_names(assignment: ReplicaAssignment) -> list[str]:
    """The names by which the replica's protocol calls its models."""
    return assignment.serving.inner_model_names(assignment.human_readable_id)


def decide_replica(
    key: RunKey,
    assignment: ReplicaAssignment,
    sandbox: Sandbox,
    folder: ReplicaFolder,
    model: ModelFolder | None,
    *,
    is_guarded: bool = True,
) -> ContainerSpec:
    """The container of one replica: on the replicas' network, and with the files of tasks if it runs any.

    With a `publish_address` its serving port is published at that address of this host.
    The platform's part of the environment comes with the assignment; `MODEL_DIR` and `PORT` are the same for all.
    Raises `ReplicaEnded` if its port is another's.
    """
    address = sandbox.publish_address
    port = assignment.serving.port
    mounts = []
    if assignment.serving.serves_tasks:
        mounts = [
            Mount(f"{key.name}-inputs", folder.inputs, INPUTS, read_only=True),
            Mount(f"{key.name}-outputs", folder.outputs, OUTPUTS, read_only=False),
            Mount(f"{key.name}-progress", folder.progress, PROGRESS, read_only=False),
        ]
    return decide_run(
        assignment,
        sandbox,
        model,
        key=key,
        environment={"MODEL_DIR": "/model", "PORT": str(port), **assignment.environment},
        mounts=mounts,
        network=_access(assignment, sandbox, is_guarded=is_guarded),
        publication=Publication(address, port) if address else None,
    )


def _access(assignment: ReplicaAssignment, sandbox: Sandbox, *, is_guarded: bool) -> NetworkAccess | None:
    if sandbox.network is None:
        return None
    gateway = assignment.environment.get(GATEWAY, "")
    access = NetworkAccess(sandbox.network, assignment.serving.port, gateway, is_guarded)
    if is_guarded and sandbox.publish_address is None and access.has_port_of_gateway:
        summary = f"its port {access.port} is the one at which containers call the gateway; take another"
        raise ReplicaEnded(ReplicaReason.NOT_READY, summary)
    return access
