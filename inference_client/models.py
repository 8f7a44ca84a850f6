"""Models and their versions: what is sent to register one, and how the server lists them."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from inference_client.answers import Answer
from inference_client.schemas import ArchiveView
from inference_client.statuses import Finding


class ModelRegistration(BaseModel):
    """A model to be registered. `model_available` follows from whether an archive is sent with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Checked here, so that no large archive is sent under a name that cannot be registered.
    human_readable_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    container_tag: str
    description: str = ""
    model_available: bool = False
    use_gpu: bool = False
    pull_policy: Literal["missing", "always", "never"] = "missing"
    isolation: Literal["strict", "compatible"] = "strict"
    time_limit_s: int = 24 * 3600
    memory_limit_bytes: int | None = None
    shared_memory_bytes: int | None = None
    temporary_bytes: int | None = None
    pids_limit: int | None = None
    cpus: float | None = None
    runtime: str | None = None
    """The Engine's runtime for its containers, by name; None: the Engine's default."""
    strict_output: bool = False
    pin: bool | None = None
    """Whether every run is of the image that the tag stands for now; None: if a registry has it."""
    restricted: bool | None = None
    """Whether only its owner and those it is shared with may use it; None: everybody, or as before."""
    replace: bool = False


class ImageFinding(Answer):
    """What a consumer that takes a model's tasks found of its image."""

    consumer: str
    finding: Finding
    detail: str | None = None
    """Why it was not found, or is unknown."""
    found_at: datetime | None = None


class ModelView(Answer):
    """A registered model in one of its versions."""

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
    """Of one run, like the four that follow; None: as the consumer has it."""
    shared_memory_bytes: int | None = None
    temporary_bytes: int | None = None
    pids_limit: int | None = None
    cpus: float | None = None
    runtime: str | None = None
    """The Engine's runtime for its containers, by name; None: the Engine's default."""
    strict_output: bool = False
    """Whether an output with anything that cannot travel is refused, instead of that being left out with a warning."""
    archive: ArchiveView | None
    created_at: datetime
    retired: bool = False
    """Whether it takes no new tasks, because it or the whole model is retired."""
    pinned_image: str | None = None
    """What every run is of, as `name@sha256:...`; None: what the tag stands for when it runs."""
    restricted: bool = False
    """Whether only its owner and those it is shared with may use it."""
    owner: str | None = None
    """Whose it is, for those who may change it; None: nobody's."""
    users: list[str] = Field(default_factory=list)
    """Whom it is shared with while it is restricted, for those who may change it."""
    warnings: list[str] = Field(default_factory=list)
    """Sentences about what will keep its tasks from running."""
    images: list[ImageFinding] = Field(default_factory=list)
    """What each consumer that takes its tasks found of its image; empty without a key."""


class ModelVersionView(Answer):
    """A version of a model, and what uses it now."""

    version: int
    container_tag: str
    description: str
    use_gpu: bool
    strict_output: bool = False
    """Whether an output with anything that cannot travel is refused."""
    archive: ArchiveView | None
    created_at: datetime
    default: bool
    """Whether the plain id of the model means this version."""
    retired: bool
    """Whether this version takes no new tasks, even while the model takes some."""
    deployed: bool
    queued: int
    """Its tasks that wait."""
    held: int
    """Its tasks that a consumer prepares, runs or delivers."""
