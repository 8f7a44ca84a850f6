"""What can be seen of the whole server at once: lists of tasks, the queue, the consumers."""

import re
from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator, Field

from contract.deployments import ReplicaStatus
from contract.schemas import MODEL_REFERENCE_LENGTH, Label, ListQuery, Message, Query
from contract.statuses import ConsumerStatus, Kind, Phase, Status, WaitsFor

EVERYBODY = "*"
"""In the place of an owner, whose name cannot be this."""


def _refuse_number(text: object) -> object:
    """Raises `ValueError` for a number, which pydantic would take for seconds, or milliseconds, since 1970."""
    if isinstance(text, str) and not re.match(r"\d{4}-", text):
        raise ValueError("a time is written as in 2026-11-21T07:00:00Z")
    return text


class TaskListQuery(ListQuery):
    """The query of `GET /api/tasks/`: keyset pages of the tasks that all given filters let through."""

    status: list[Status] = Field(
        default_factory=list,
        max_length=len(Status),
        description="Only tasks with this status; repeat it for several.",
    )
    model: Annotated[
        str | None,
        Field(
            max_length=MODEL_REFERENCE_LENGTH,
            description="Only tasks of this model, or as `<id>@<version>` of this version.",
        ),
    ] = None
    owner: Annotated[
        str | None,
        Field(
            max_length=128,
            description="Only tasks of this owner; `*` asks for everybody's. Others than one's own need a key with the "
            "scope `operate`.",
        ),
    ] = None
    since: Annotated[
        Annotated[AwareDatetime, BeforeValidator(_refuse_number)] | None,
        Field(description="Only tasks submitted at this time or later, as in `2026-11-21T07:00:00Z`."),
    ] = None
    label: Annotated[
        Label | None,
        Field(description="Only tasks with exactly this label; of other owners' tasks this needs the scope `admin`."),
    ] = None
    q: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=128,
            description="Only tasks with this text in their model's id, owner, consumer or detail, in whatever case, "
            "or with a uid that begins with it.",
        ),
    ] = None


class QueueQuery(Query):
    """The query of `GET /api/queue`."""

    limit: Annotated[int, Field(ge=1, le=500, description="At most this many tasks that wait, and as many held.")] = 100


class LaneView(Message):
    """The tasks of one kind that have not ended, counted, and the consumers for them."""

    kind: Kind
    queued: int = Field(description="Tasks that wait.")
    held: int = Field(description="Tasks that a consumer prepares, runs or delivers.")
    consumers: int = Field(description="Consumers of this kind that were heard from within a lease.")
    free: int = Field(description="Those of them that take the next task.")
    oldest_queued_at: datetime | None = Field(None, description="When the oldest task that waits was submitted.")
    waits_for: WaitsFor | None = Field(description="What the first task of the queue waits for; null if none waits.")
    wait_detail: str | None = Field(description="The same in a sentence.")


class QueuedTask(Message):
    """A task that has not ended."""

    uid: str
    owner: str | None
    human_readable_id: str
    kind: Kind
    priority: int
    status: Status
    position: int | None = Field(description="How many queued tasks will be claimed before this one; null once held.")
    consumer: str | None
    created_at: datetime


class QueueView(Message):
    """The queue: counts for everybody, and the tasks that the caller may see."""

    lanes: list[LaneView] = Field(description="One for each kind.")
    tasks: list[QueuedTask] = Field(description="First those that are held, then those that wait, in their order.")


class ConsumerTask(Message):
    """What a consumer runs."""

    uid: str
    owner: str | None
    human_readable_id: str
    phase: Phase | None
    pull_percent: int | None = Field(None, description="How much of its image was pulled; null while none is.")
    claimed_at: datetime


class HostedReplica(Message):
    """A warm container at a consumer."""

    human_readable_id: str
    status: ReplicaStatus
    use_gpu: bool
    share_gpu: bool


class ConsumerView(Message):
    """A consumer, how it stands towards the next task, and what it runs."""

    name: str
    owner: str | None = Field(description="The owner of its host's key; null without the scope `operate`.")
    kinds: list[Kind] = Field(description="The kinds of tasks it takes.")
    gpu_uuid: str | None
    host: str | None = Field(description="The machine that runs its containers; null if it did not say.")
    status: ConsumerStatus
    detail: str | None = Field(description="Why it takes nothing; null if it takes the next task.")
    task: ConsumerTask | None = Field(description="Its task, if the caller may see that.")
    replicas: list[HostedReplica]
    replica_slots: int
    draining_at: datetime | None = Field(None, description="Since when it takes nothing new; null unless it drains.")
    first_seen_at: datetime
    seen_at: datetime
