"""Decides how a replica is hosted: its container, and where it finds the files of a task. Pure: no I/O."""

from contract.deployments import ReplicaAssignment
from job_consumer.container_spec import Limits, decide_sandbox
from job_consumer.engine import ContainerSpec, Mount, Publication, RunKey, RunKind
from job_consumer.workspace import ModelFolder, ReplicaFolder

INPUTS = "/tasks/input"
OUTPUTS = "/tasks/output"


def replica_key(assignment: ReplicaAssignment) -> RunKey:
    """The name of the replica's run."""
    return RunKey(assignment.uid, assignment.fence, RunKind.REPLICA)


def model_names(assignment: ReplicaAssignment) -> list[str]:
    """The names by which the replica's protocol calls its models."""
    return assignment.serving.model_names or [assignment.human_readable_id]


def decide_replica(
    assignment: ReplicaAssignment,
    *,
    network: str,
    publish_address: str | None,
    consumer: str,
    folder: ReplicaFolder,
    model: ModelFolder | None,
    limits: Limits,
    gpu_uuid: str | None,
    own_user: str | None,
) -> ContainerSpec:
    """The container of one replica: a run's, but on the replicas' network, and with the files of tasks if it runs them.

    With `publish_address` its serving port is published at that address of this host.
    The platform's part of the environment comes with the assignment; `MODEL_DIR` and `PORT` are the same for all.
    """
    key, port = replica_key(assignment), assignment.serving.port
    mounts = []
    if assignment.serving.serves_tasks:
        mounts = [
            Mount(f"{key.name}-inputs", folder.inputs, INPUTS, read_only=True),
            Mount(f"{key.name}-outputs", folder.outputs, OUTPUTS, read_only=False),
        ]
    return decide_sandbox(
        assignment,
        key=key,
        environment={"MODEL_DIR": "/model", "PORT": str(port), **assignment.environment},
        mounts=mounts,
        consumer=consumer,
        model=model,
        limits=limits,
        gpu_uuid=gpu_uuid,
        own_user=own_user,
        network=network,
        publication=Publication(publish_address, port) if publish_address else None,
    )
