"""What the client reads of the whole server: the queue and the consumers."""

from datetime import datetime

from inference_client.answers import Answer
from inference_client.statuses import ConsumerStatus, Kind, Phase, ReplicaStatus, Status, WaitsFor


class LaneView(Answer):
    """The tasks of one kind that have not ended, counted, and the consumers for them."""

    kind: Kind
    queued: int
    held: int
    """Tasks that a consumer prepares, runs or delivers."""
    consumers: int
    free: int
    oldest_queued_at: datetime | None = None
    waits_for: WaitsFor | None
    """What the first task of the queue waits for."""
    wait_detail: str | None


class QueuedTask(Answer):
    """A task that has not ended."""

    uid: str
    owner: str | None
    human_readable_id: str
    kind: Kind
    priority: int
    status: Status
    position: int | None
    """How many queued tasks will be claimed before this one."""
    consumer: str | None
    created_at: datetime


class QueueView(Answer):
    """The queue: counts for everybody, and the tasks that the key may see, those that are held first."""

    lanes: list[LaneView]
    tasks: list[QueuedTask]


class ConsumerTask(Answer):
    """What a consumer runs."""

    uid: str
    owner: str | None
    human_readable_id: str
    phase: Phase | None
    pull_percent: int | None = None
    claimed_at: datetime


class HostedReplica(Answer):
    """A warm container at a consumer."""

    human_readable_id: str
    status: ReplicaStatus
    use_gpu: bool
    share_gpu: bool


class ConsumerView(Answer):
    """A consumer, how it stands towards the next task, and what it runs."""

    name: str
    owner: str | None
    kinds: list[Kind]
    """The kinds of tasks it takes."""
    gpu_uuid: str | None
    host: str | None = None
    """The machine that runs its containers."""
    status: ConsumerStatus
    detail: str | None
    """Why it takes nothing."""
    task: ConsumerTask | None
    """Its task, if the key may see that."""
    replicas: list[HostedReplica]
    replica_slots: int
    draining_at: datetime | None = None
    """Since when it takes nothing new."""
    first_seen_at: datetime
    seen_at: datetime
