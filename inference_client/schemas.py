"""What the client sends and what it reads, as pydantic models. Times are UTC; sizes are bytes; durations are seconds.

The server judges what it is sent: few of its rules are repeated here. What a newer server says beyond it is ignored.
"""

from datetime import datetime

from pydantic import Field

from inference_client.answers import Answer
from inference_client.serving import ServingSpec
from inference_client.statuses import (
    DeploymentStatus,
    Phase,
    Reason,
    ReplicaReason,
    ReplicaStatus,
    Status,
    WaitsFor,
)


class ArchiveView(Answer):
    """A stored zip."""

    sha256: str
    size_bytes: int


class TaskView(Answer):
    """A task as its owner sees it."""

    uid: str
    owner: str | None = None
    human_readable_id: str
    model_version: int
    priority: int = 0
    label: str | None = None
    status: Status
    phase: Phase | None = None
    reason: Reason | None = None
    detail: str | None = None
    exit_code: int | None = None
    image: str | None = None
    """Whose container ran, as `name@sha256:...` or the image's id."""
    cancel_requested: bool = False
    position: int | None = None
    """How many queued tasks will be claimed before this one."""
    eta: float | None = None
    """Seconds until it probably ends; None if unknown."""
    waits_for: WaitsFor | None = None
    wait_detail: str | None = None
    """What it waits for in a sentence, with what can be done about it."""
    pull_percent: int | None = None
    """How much of its image was pulled; None while none is."""
    progress: float | None = None
    progress_text: str | None = None
    """How far its run is, between 0 and 1, as its model says, and what it says with it; None while it does not."""
    attempt: int
    consumer: str | None = None
    log_tail: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    input: ArchiveView | None = None
    output: ArchiveView | None = None
    warnings: list[str] = Field(default_factory=list)
    """What of its output could not be sent as it was, or at all; at most 100 sentences, and none in lists."""
    warning_count: int = 0
    """How many there are in all."""
    rerun_of: str | None = None
    """The uid of the task whose input this one runs again."""

    @property
    def has_ended(self) -> bool:
        """Whether the task never changes again, even if it ended with a status that is unknown here."""
        return self.status.is_terminal or self.ended_at is not None


class EventView(Answer):
    """One change of a task's status."""

    at: datetime
    old_status: Status | None
    new_status: Status
    fence: int
    reason: Reason | None
    rerun_of: str | None = None
    """Of the submission of a rerun: the uid of the first task."""


class AttemptView(Answer):
    """One execution of a task by a consumer."""

    fence: int
    consumer: str
    gpu_uuid: str | None
    replica_uid: str | None
    image: str | None = None
    claimed_at: datetime
    ended_at: datetime | None
    outcome: str | None
    """`finished`, `released`, `lost`, or the reason for which the task ended."""
    detail: str | None


class ReplicaView(Answer):
    """One container of a deployment."""

    uid: str
    model_version: int
    status: ReplicaStatus
    reason: ReplicaReason | None = None
    summary: str | None = None
    """Why it stands where it does, in the server's words."""
    detail: str | None = None
    """The same; for the deployment's owner and operators with what the container said."""
    consumer: str | None = None
    gpu_uuid: str | None = None
    address: str | None = None
    in_flight: int = 0
    """Calls that are open on it."""
    created_at: datetime
    ready_at: datetime | None = None
    ended_at: datetime | None = None


class DeploymentView(Answer):
    """A deployment and its replicas: those that live and the last few that ended."""

    human_readable_id: str
    model_version: int
    owner: str | None = None
    serving: ServingSpec
    status: DeploymentStatus
    summary: str | None = None
    """Why it fails, or what a replica waits for, in the server's words."""
    detail: str | None = None
    """The same; for its owner and operators with what a container said."""
    failures: int
    """Replicas in a row that ended by themselves."""
    next_start_at: datetime | None = None
    replicas: list[ReplicaView]
    created_at: datetime
    updated_at: datetime
