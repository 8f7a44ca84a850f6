"""What `GET /api/events` tells as it happens: changes of tasks, which are kept and numbered, and how things stand."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from contract.deployments import DeploymentView
from contract.overview import LaneView
from contract.schemas import UID_PATTERN, Message, Query
from contract.statuses import Reason, Status

MEDIA_TYPE = "text/event-stream"
LAST_EVENT_ID_HEADER = "last-event-id"
KEEP_ALIVE_S = 15.0
"""How long a stream is silent at most: proxies give up on an answer that is silent for 60 s."""


class EventType(StrEnum):
    """What an event is about; its `event` field."""

    TASK = "task"
    """The status of a task changed. Its `id` is a place to continue from."""
    CONSUMER = "consumer"
    """How a consumer stands now."""
    DEPLOYMENT = "deployment"
    """How a deployment stands now."""
    QUEUE = "queue"
    """How many tasks wait and run now."""
    PROGRESS = "progress"
    """How far a run is now, as its model says."""


class EventsQuery(Query):
    """The query of `GET /api/events`."""

    type: list[EventType] = Field(
        default_factory=list,
        max_length=len(EventType),
        description="Only events of this type; repeat it for several.",
    )
    uid: list[Annotated[str, Field(pattern=UID_PATTERN)]] = Field(
        default_factory=list,
        max_length=100,
        description="Only tasks with this uid; repeat it for several. It also shows tasks that were submitted "
        "without a key.",
    )


class TaskEvent(Message):
    """The data of a `task` event: one change of a task's status."""

    uid: str
    owner: str | None
    human_readable_id: str
    at: datetime
    old_status: Status | None = Field(description="Null for the first event, the submission.")
    new_status: Status
    fence: int = Field(description="Of the attempt that held the task; 0 before the first claim.")
    reason: Reason | None = Field(description="Why it ended without an output.")


class DeploymentEvent(Message):
    """The data of a `deployment` event."""

    human_readable_id: str
    deployment: DeploymentView | None = Field(description="Null once the model is kept warm no longer.")


class QueueEvent(Message):
    """The data of a `queue` event."""

    lanes: list[LaneView] = Field(description="One for each kind.")


class ProgressEvent(Message):
    """The data of a `progress` event."""

    uid: str
    owner: str | None
    human_readable_id: str
    progress: float = Field(description="Between 0 and 1.")
    progress_text: str | None = Field(
        description="What the model says with it; null for another owner's task without the scope `admin`."
    )
