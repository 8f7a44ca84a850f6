"""The queries of the calls that register models and submit, poll and follow tasks."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from contract.image_names import RUNTIME_PATTERN
from contract.schemas import MODEL_REFERENCE_LENGTH, Isolation, Label, ModelId, PullPolicy, Query

MIB = 1024**2
MOST_PIDS = 4_194_304
"""As many as Linux itself allows."""
MOST_CPUS = 4096
_MOUNTPOINTS = {"input_mountpoint": "/input", "output_mountpoint": "/output", "model_mountpoint": "/model"}
"""What the customer's own client sends with every registration."""


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
    pull_policy: Annotated[PullPolicy, Field(description="When the consumer pulls the image.")] = PullPolicy.MISSING
    isolation: Annotated[
        Isolation,
        Field(
            description="`strict`: unprivileged user, read-only root file system. `compatible`: the image's own user "
            "and a writable root, for images that need it. Neither has a network or any capability."
        ),
    ] = Isolation.STRICT
    time_limit_s: Annotated[
        int, Field(ge=1, le=30 * 24 * 3600, description="How long one run may take, in seconds.")
    ] = 24 * 3600
    memory_limit_bytes: Annotated[
        int | None, Field(ge=6 * MIB, description="Memory of one run in bytes; unset: the consumer's own limit.")
    ] = None
    shared_memory_bytes: Annotated[
        int | None,
        Field(ge=MIB, description="Bytes of `/dev/shm`, which count as memory; unset: the consumer's default."),
    ] = None
    temporary_bytes: Annotated[
        int | None,
        Field(ge=MIB, description="Bytes of `/tmp`, which count as memory; unset: the consumer's default."),
    ] = None
    pids_limit: Annotated[
        int | None,
        Field(ge=16, le=MOST_PIDS, description="Processes and threads of one run; unset: the consumer's default."),
    ] = None
    cpus: Annotated[
        float | None,
        Field(
            ge=0.01,
            le=MOST_CPUS,
            allow_inf_nan=False,
            description="Cores that one run may use, such as 1.5; unset: the consumer's own limit.",
        ),
    ] = None
    runtime: Annotated[
        str | None,
        Field(
            pattern=RUNTIME_PATTERN,
            description="The Engine's runtime for its containers, such as `runsc`; unset: the Engine's default. "
            "The operator says which there are.",
        ),
    ] = None
    strict_output: Annotated[
        bool,
        Field(
            description="Refuse an output with anything that cannot travel, instead of leaving that out with a warning."
        ),
    ] = False
    pin: Annotated[
        bool | None,
        Field(
            description="Whether every run is of the image that the tag stands for now, whatever it stands for later. "
            "Unset: it is, if a registry has the image and the pull policy is `missing`."
        ),
    ] = None
    restricted: Annotated[
        bool | None,
        Field(
            description="Whether only its owner, whose key registers it, and those it is shared with may use it. "
            "Unset: everybody may or, of a new version, whoever could before."
        ),
    ] = None
    replace: Annotated[
        bool, Field(description="Make a new version where the id exists; queued tasks keep the version they had.")
    ] = False

    @model_validator(mode="before")
    @classmethod
    def _check_mountpoints(cls, given: Any) -> Any:
        """They may be named, and are the same for every model."""
        if not isinstance(given, Mapping):
            return given
        for name, mountpoint in _MOUNTPOINTS.items():
            if name in given and given[name] != mountpoint:
                raise ValueError(f"{name} is {mountpoint} for every model; leave it out, or send that")
        return {name: value for name, value in given.items() if name not in _MOUNTPOINTS}

    @model_validator(mode="after")
    def _check_pin(self) -> Self:
        if self.pin and self.pull_policy is not PullPolicy.MISSING:
            raise ValueError(f"pin is for the pull policy missing; {self.pull_policy} runs what the tag stands for")
        return self

    @model_validator(mode="after")
    def _check_parts_of_memory(self) -> Self:
        if self.memory_limit_bytes is not None:
            for name in ("shared_memory_bytes", "temporary_bytes"):
                if (getattr(self, name) or 0) > self.memory_limit_bytes:
                    raise ValueError(f"{name} is more than memory_limit_bytes, of which it is a part")
        return self


class TaskSubmission(Query):
    """The query of `POST /api/tasks/`: one of the two names must be given."""

    human_readable_id: Annotated[
        str | None,
        Field(
            max_length=MODEL_REFERENCE_LENGTH,
            description="The model to run: its id for its default version, or `<id>@<version>` for a certain one.",
        ),
    ] = None
    model_human_readable_id: Annotated[
        str | None,
        Field(max_length=MODEL_REFERENCE_LENGTH, description="Another accepted name of `human_readable_id`."),
    ] = None
    priority: Annotated[
        int,
        Field(ge=-100, le=100, description="Higher ones run first; more than 0 needs a key with the scope `operate`."),
    ] = 0
    label: Annotated[
        Label | None, Field(description="A name for the tasks of one batch, by which they can be listed.")
    ] = None


class TaskPoll(Query):
    """The query of `GET /api/tasks/{uid}` and of its status."""

    wait: Annotated[float, Field(ge=0, le=60, description="Hold the answer for up to this many seconds.")] = 0


class LogQuery(Query):
    """The query of `GET /api/tasks/{uid}/logs`."""

    follow: Annotated[bool, Field(description="Stream the log until the task ends.")] = False
