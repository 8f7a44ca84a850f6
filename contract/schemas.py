"""The JSON that services exchange, as pydantic models. Times are UTC; sizes are bytes; durations are seconds."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from contract.statuses import Phase, Reason, Status

MODEL_ID_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,127}$"
UID_PATTERN = r"^[0-9a-f]{64}$"
"""256 random bits in hex: knowing a uid is what opens a task in the open mode."""
SHA256_PATTERN = r"^[0-9a-f]{64}$"
PROCESS_TAG_PREFIX = "process:"
"""A container_tag with this prefix names a program inside the model's zip, for machines without Docker."""

ModelId = Annotated[
    str,
    Field(
        pattern=MODEL_ID_PATTERN,
        description="The model's unique name: lower-case letters, digits, `.`, `_`, `-`; at most 128.",
        examples=["spleen-segmentation"],
    ),
]
Sha256 = Annotated[str, Field(pattern=SHA256_PATTERN)]


class Query(BaseModel):
    """Base of query strings: a parameter nobody knows is refused by name, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Message(BaseModel):
    """Base of JSON bodies: immutable; unknown members are ignored, so that a newer peer can say more."""

    model_config = ConfigDict(frozen=True)


class ModelRegistration(Query):
    """The query of `POST /api/models/`."""

    human_readable_id: ModelId
    container_tag: Annotated[
        str,
        Field(
            min_length=1,
            max_length=512,
            pattern=r"^[A-Za-z0-9][^\s\x00-\x1f]*$",
            description="The Docker image to run, as `docker run` takes it.",
            examples=["registry.example.org/spleen:3"],
        ),
    ]
    description: Annotated[str, Field(max_length=4096, description="For people.")] = ""
    model_available: Annotated[
        bool, Field(description="Whether `zip_file` carries static content for `/model`. Must agree with the body.")
    ] = False
    use_gpu: Annotated[bool, Field(description="Whether a task needs a GPU.")] = False
    pull_policy: Annotated[
        Literal["missing", "always", "never"], Field(description="When the consumer pulls the image.")
    ] = "missing"
    isolation: Annotated[
        Literal["strict", "compatible"],
        Field(
            description="`strict`: unprivileged user, read-only root file system. `compatible`: the image's own user "
            "and a writable root, for images that need it. Neither has a network or any capability."
        ),
    ] = "strict"
    time_limit_s: Annotated[
        int, Field(ge=1, le=30 * 24 * 3600, description="How long one run may take, in seconds.")
    ] = 24 * 3600
    memory_limit_bytes: Annotated[
        int | None, Field(ge=6 * 1024**2, description="Memory of one run in bytes; unset: the consumer's own limit.")
    ] = None
    replace: Annotated[
        bool, Field(description="Make a new version where the id exists; queued tasks keep the version they had.")
    ] = False


class TaskSubmission(Query):
    """The query of `POST /api/tasks/`: one of the two names must be given."""

    human_readable_id: Annotated[str | None, Field(max_length=128, description="The model to run.")] = None
    model_human_readable_id: Annotated[
        str | None, Field(max_length=128, description="Another accepted name of `human_readable_id`.")
    ] = None
    priority: Annotated[
        int,
        Field(ge=-100, le=100, description="Higher ones run first; more than 0 needs a key with the scope `operate`."),
    ] = 0


class TaskPoll(Query):
    """The query of `GET /api/tasks/{uid}` and of its status."""

    wait: Annotated[float, Field(ge=0, le=60, description="Hold the answer up to so many seconds.")] = 0


class LogQuery(Query):
    """The query of `GET /api/tasks/{uid}/logs`."""

    follow: Annotated[bool, Field(description="Stream the log until the task ends.")] = False


class ListQuery(Query):
    """The query of a list: keyset pages."""

    limit: Annotated[int, Field(ge=1, le=500, description="At most so many.")] = 100
    after: Annotated[
        str | None, Field(max_length=128, description="The last id, of tasks the last uid, of the page before.")
    ] = None


class ArchiveView(Message):
    """A stored zip."""

    sha256: Sha256
    size_bytes: int


class ModelView(Message):
    """A registered model, in its newest version."""

    human_readable_id: str
    version: int
    container_tag: str
    description: str
    model_available: bool
    use_gpu: bool
    pull_policy: str
    isolation: str
    time_limit_s: int
    memory_limit_bytes: int | None
    archive: ArchiveView | None
    created_at: datetime


class TaskView(Message):
    """A task as its owner sees it."""

    uid: str
    owner: str | None = Field(None, description="Whose key submitted it; null where none was given.")
    human_readable_id: str
    model_version: int
    priority: int = 0
    status: Status
    phase: Phase | None = None
    reason: Reason | None = None
    detail: str | None = None
    exit_code: int | None = None
    cancel_requested: bool = False
    position: int | None = Field(None, description="How many queued tasks will be claimed before this one.")
    eta: float | None = Field(
        None, description="Seconds until it probably ends, from the median run of the model; null where none ended yet."
    )
    attempt: int = Field(description="How often a consumer claimed the task.")
    consumer: str | None = None
    log_tail: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    input: ArchiveView | None = None
    output: ArchiveView | None = None


class ConsumerRegistration(Message):
    """A consumer says who it is and what it can run."""

    consumer: Annotated[str, Field(min_length=1, max_length=200)]
    gpu_uuid: str | None = None
    accepts_cpu_tasks: bool = True
    replica_slots: Annotated[int, Field(ge=0, le=1000, description="How many replicas it hosts at once.")] = 8


class ClaimRequest(ConsumerRegistration):
    """A consumer asks for work."""

    uid: str | None = Field(None, description="The task the bell named; it goes first where it is claimable.")


class Assignment(Message):
    """All a consumer needs to know to run one attempt of a task."""

    uid: str
    fence: int
    attempt: int
    lease_s: float = Field(description="The lease ends so long after the last heartbeat.")
    human_readable_id: str
    model_version: int
    container_tag: str
    use_gpu: bool
    pull_policy: str
    isolation: str
    time_limit_s: int
    memory_limit_bytes: int | None
    max_unpacked_bytes: int = Field(description="The input, and the model's archive, unpacked.")
    max_output_bytes: int
    input: ArchiveView
    model_archive: ArchiveView | None
    replica_uid: str | None = Field(
        None, description="The replica of this consumer that runs the task, in place of a container of its own."
    )


class Heartbeat(Message):
    """The holder lives and says what it does."""

    consumer: str
    phase: Phase


class HeartbeatReply(Message):
    """What the holder must know."""

    cancel: bool = Field(description="The owner wants the task to end; stop and report `cancelled`.")
    seconds_left: float = Field(description="Until the server ends this phase itself.")


class Commit(Message):
    """The uploaded output becomes the task's result."""

    consumer: str
    sha256: Sha256
    size_bytes: int
    exit_code: int = 0


class Failure(Message):
    """The model failed, for a reason its owner should see."""

    consumer: str
    reason: Reason
    detail: Annotated[str, Field(max_length=4096)]
    exit_code: int | None = None


class Release(Message):
    """The holder gives the task back."""

    consumer: str
    detail: Annotated[str, Field(max_length=4096)]
    blameless: bool = Field(False, description="A planned stop: the task's budget of infrastructure failures is kept.")


class Settled(Message):
    """How the task stands after a commit, a failure or a release."""

    status: Status
