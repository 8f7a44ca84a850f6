"""What a stream of events tells."""

from dataclasses import dataclass
from datetime import datetime

from inference_client.answers import Answer
from inference_client.overview_schemas import ConsumerView, LaneView
from inference_client.schemas import DeploymentView
from inference_client.statuses import EventType, Reason, Status


class TaskEvent(Answer):
    """One change of a task's status."""

    uid: str
    owner: str | None
    human_readable_id: str
    at: datetime
    old_status: Status | None
    new_status: Status
    fence: int
    reason: Reason | None


class DeploymentEvent(Answer):
    """How a deployment stands."""

    human_readable_id: str
    deployment: DeploymentView | None
    """None once the model is kept warm no longer."""


class QueueEvent(Answer):
    """How many tasks wait and run."""

    lanes: list[LaneView]
    """One for each kind."""


@dataclass(frozen=True)
class ServerEvent:
    """Something that happened."""

    type: EventType
    data: TaskEvent | ConsumerView | DeploymentEvent | QueueEvent
    last_id: int
    """Where to continue after it: what `watch` takes as `after`."""


DATA: dict[str, type[TaskEvent | ConsumerView | DeploymentEvent | QueueEvent]] = {
    EventType.TASK: TaskEvent,
    EventType.CONSUMER: ConsumerView,
    EventType.DEPLOYMENT: DeploymentEvent,
    EventType.QUEUE: QueueEvent,
}
