"""What has happened to a task: every change of its status, every attempt."""

from datetime import datetime

from pydantic import Field

from contract.schemas import Message, RanImage
from contract.statuses import Reason, Status


class EventView(Message):
    """One change of a task's status."""

    at: datetime
    old_status: Status | None = Field(description="Null for the first event, the submission.")
    new_status: Status
    fence: int = Field(description="Of the attempt that held the task; 0 before the first claim.")
    reason: Reason | None = Field(description="Why it ended without an output.")
    rerun_of: str | None = Field(None, description="Of the submission of a rerun: the uid of the first task.")


class AttemptView(Message):
    """One execution of a task by a consumer."""

    fence: int = Field(description="It numbers the attempts of a task, with gaps.")
    consumer: str
    gpu_uuid: str | None
    replica_uid: str | None = Field(description="The warm replica that ran the task in place of a container.")
    image: RanImage = None
    claimed_at: datetime
    ended_at: datetime | None
    outcome: str | None = Field(
        description="`finished`; `released`: its consumer gave the task back, and nobody is to blame; `lost`: its "
        "consumer stopped answering; `infrastructure`: its host or the Engine failed; or the reason for which the task "
        "ended. Null while it lasts."
    )
    detail: str | None = Field(description="More about the outcome, for the task's owner and the scope `admin`.")
