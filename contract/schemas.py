"""The JSON that services exchange, as pydantic models. Times are UTC; sizes are bytes; durations are seconds."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from contract.access import OWNER_PATTERN
from contract.statuses import Finding, Phase, Reason, Status, WaitsFor

MODEL_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
MODEL_REFERENCE_PATTERN = MODEL_ID_PATTERN.removesuffix("$") + r"(@[1-9][0-9]{0,8})?$"
"""An id, which means the model's default version, or `<id>@<version>`. No id has an `@`."""
MODEL_REFERENCE_LENGTH = 138
UID_PATTERN = r"^[0-9a-f]{64}$"
"""256 random bits in hex: in the open mode, whoever knows a uid may use its task."""
SHA256_PATTERN = r"^[0-9a-f]{64}$"
PROCESS_TAG_PREFIX = "process:"
"""A container_tag with this prefix names a program in the model's zip, for machines without Docker."""

Label = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
"""A user's name for several tasks: one line of text."""

ModelId = Annotated[
    str,
    Field(
        pattern=MODEL_ID_PATTERN,
        description="The model's name, unique regardless of case: letters, digits, `.`, `_`, `-`; at most 128.",
        examples=["spleen-segmentation"],
    ),
]
OwnerName = Annotated[str, Field(pattern=f"^{OWNER_PATTERN}$", description="A person, a group or a program.")]
Sha256 = Annotated[str, Field(pattern=SHA256_PATTERN)]
RanImage = Annotated[
    str | None,
    Field(
        max_length=1024,
        description="The image whose container ran, as `name@sha256:...`, or its id if no registry gave it.",
        examples=[f"registry.example.org/spleen@sha256:{'0' * 64}"],
    ),
]

MAX_WARNINGS = 100
"""How many of a task's warnings are told; the others are only counted."""
MAX_WARNING_LENGTH = 500


def _make_storable(text: object) -> object:
    # They may quote what a model wrote, and must not be what the output is lost for.
    return re.sub("[\0\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text) if isinstance(text, str) else text


_Warning = Annotated[str, BeforeValidator(_make_storable), Field(max_length=MAX_WARNING_LENGTH)]


class Query(BaseModel):
    """The base of query strings: an unknown parameter is refused by name, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Message(BaseModel):
    """The base of JSON bodies: immutable, and unknown members are ignored, so that a newer peer can say more."""

    model_config = ConfigDict(frozen=True)


class PullPolicy(StrEnum):
    """When a consumer pulls the image of a model."""

    MISSING = "missing"
    ALWAYS = "always"
    NEVER = "never"


class Isolation(StrEnum):
    """How much a container may change inside itself."""

    STRICT = "strict"
    """An unprivileged user and a read-only root file system."""
    COMPATIBLE = "compatible"
    """The image's own user and a writable root file system."""


class ListQuery(Query):
    """The query of a list: keyset pages."""

    limit: Annotated[int, Field(ge=1, le=500, description="At most this many.")] = 100
    after: Annotated[
        str | None, Field(max_length=128, description="The last id, of tasks the last uid, of the page before.")
    ] = None


class ArchiveView(Message):
    """A stored zip, by its hash and size."""

    sha256: Sha256
    size_bytes: int


FindingDetail = Annotated[str | None, Field(max_length=2048, description="Why it was not found, or is unknown.")]


class ImageFinding(Message):
    """What a consumer that takes a model's tasks found of its image."""

    consumer: str
    finding: Finding
    detail: FindingDetail = None
    found_at: Annotated[datetime | None, Field(description="When it looked; null if it has not.")] = None


class ModelView(Message):
    """A version of a registered model: the default one, unless another was asked for."""

    human_readable_id: str
    version: int
    container_tag: str
    description: str
    model_available: bool
    use_gpu: bool
    pull_policy: PullPolicy
    isolation: Isolation
    time_limit_s: int
    memory_limit_bytes: int | None
    shared_memory_bytes: int | None = Field(description="Of `/dev/shm`; null here and below: as the consumer has it.")
    temporary_bytes: int | None = Field(description="Of `/tmp`.")
    pids_limit: int | None = Field(description="Processes and threads of one run.")
    cpus: float | None = Field(description="Cores of one run.")
    runtime: str | None = Field(None, description="The Engine's runtime for its containers; null: its default.")
    strict_output: bool = Field(description="Whether an output with anything that cannot travel is refused.")
    archive: ArchiveView | None
    created_at: datetime
    retired: bool = Field(description="Whether it takes no new tasks, because it or the whole model is retired.")
    pinned_image: str | None = Field(
        None, description="What every run is of, as `name@sha256:...`; null: what the tag stands for when it runs."
    )
    restricted: bool = Field(False, description="Whether only its owner and those it is shared with may use it.")
    owner: str | None = Field(None, description="Whose it is, for those who may change it; null: nobody's.")
    users: Annotated[
        list[str], Field(description="Whom it is shared with while it is restricted, for those who may change it.")
    ] = []
    warnings: Annotated[list[str], Field(description="Sentences about what will keep its tasks from running.")] = []
    images: Annotated[
        list[ImageFinding],
        Field(description="What each consumer that takes its tasks found of its image; empty without a key."),
    ] = []


class TaskView(Message):
    """A task as its owner sees it."""

    uid: str
    owner: str | None = Field(None, description="The owner of the key that submitted it; null without a key.")
    human_readable_id: str
    model_version: int
    priority: int = 0
    label: str | None = Field(None, description="What the submission called it, together with others of its batch.")
    status: Status
    phase: Phase | None = None
    reason: Reason | None = None
    detail: str | None = None
    exit_code: int | None = None
    image: RanImage = None
    cancel_requested: bool = False
    position: int | None = Field(None, description="How many queued tasks will be claimed before this one.")
    eta: float | None = Field(
        None,
        description="Estimated seconds until it ends, by the model's last tasks, from claim to end; null if unknown.",
    )
    waits_for: WaitsFor | None = Field(None, description="What keeps it from running; null once it runs.")
    wait_detail: str | None = Field(None, description="The same in a sentence, with what can be done about it.")
    pull_percent: int | None = Field(None, description="How much of its image was pulled; null while none is.")
    progress: float | None = Field(
        None,
        description="How far its run is, between 0 and 1, as the model says; null if it does not, or does not run.",
    )
    progress_text: str | None = Field(
        None,
        description="What the model says with it, a line of text; null for another owner's task without the scope "
        "`admin`.",
    )
    attempt: int = Field(description="How often a consumer claimed the task.")
    consumer: str | None = None
    log_tail: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    input: ArchiveView | None = None
    output: ArchiveView | None = None
    warnings: Annotated[
        list[str],
        Field(
            description="What of the run's output could not be sent as it was, or at all; at most 100 sentences. Empty "
            "in lists, and for another owner's task without the scope `admin`."
        ),
    ] = []
    warning_count: Annotated[int, Field(description="How many warnings there are in all.")] = 0
    rerun_of: str | None = Field(None, description="The uid of the task whose input this one runs again.")


class ConsumerRegistration(Message):
    """A consumer says who it is and what it can run."""

    consumer: Annotated[str, Field(min_length=1, max_length=200)]
    gpu_uuid: str | None = None
    host: Annotated[str | None, Field(max_length=255, description="The machine that runs its containers.")] = None
    accepts_cpu_tasks: bool = True
    replica_slots: Annotated[int, Field(ge=0, le=1000, description="How many replicas it hosts at once.")] = 8
    process: Annotated[
        str | None, Field(max_length=64, description="Names the process; another one after each start.")
    ] = None
    looks_up_images: Annotated[bool, Field(description="Whether it says of models' images what it finds.")] = False
    # A consumer of the release before does not say it.
    guards_replicas: Annotated[bool, Field(description="Whether replicas reach only what they are given there.")] = True


class RunAssignment(Message):
    """What a consumer needs to know for every run, be it an attempt or a replica."""

    uid: str = Field(description="Of the task, or of the replica.")
    fence: int
    lease_s: float = Field(description="The lease ends this long after the last heartbeat.")
    human_readable_id: str
    model_version: int
    container_tag: str
    pinned_image: RanImage = None
    use_gpu: bool
    pull_policy: PullPolicy
    isolation: Isolation
    memory_limit_bytes: int | None
    # A private API of the release before says none of these.
    shared_memory_bytes: int | None = None
    temporary_bytes: int | None = None
    pids_limit: int | None = None
    cpus: float | None = None
    runtime: str | None = None
    max_unpacked_bytes: int = Field(description="Of each archive, once unpacked.")
    # A private API of the release before does not say it.
    max_entries: int = Field(10_000, description="Files and folders of each archive, and of the output.")
    model_archive: ArchiveView | None


class Assignment(RunAssignment):
    """All a consumer needs to know to run one attempt of a task."""

    attempt: int
    has_run: bool = Field(False, description="Whether a container of its version ended before: its image exists.")
    time_limit_s: int
    max_output_bytes: int
    # A private API of the release before does not say it, and would lose the warnings.
    strict_output: bool = Field(True, description="Whether an output with anything that cannot travel is refused.")
    input: ArchiveView
    is_ahead: bool = Field(
        False, description="Whether it is prepared ahead: its holder must ask `begin` before its container starts."
    )
    replica_uid: str | None = Field(
        None, description="The replica of this consumer that runs the task, in place of a container of its own."
    )


class Commit(Message):
    """The uploaded output becomes the task's result."""

    consumer: str
    image: RanImage = None
    sha256: Sha256
    size_bytes: int
    exit_code: int = 0
    warnings: Annotated[
        list[_Warning],
        Field(max_length=MAX_WARNINGS, description="What of the run's output is not in the zip as it was, or at all."),
    ] = []
    warning_count: Annotated[int, Field(ge=0, description="How many there are in all.")] = 0


class Failure(Message):
    """The model failed, for a reason its owner should see."""

    consumer: str
    reason: Reason
    detail: Annotated[str, Field(max_length=4096)]
    exit_code: int | None = None
    image: RanImage = None


class Release(Message):
    """The holder gives the task back."""

    consumer: str
    detail: Annotated[str, Field(max_length=4096)]
    blameless: bool = Field(False, description="A planned stop: the task's budget of infrastructure failures is kept.")


class Settled(Message):
    """How the task stands after a commit, a failure or a release."""

    status: Status
