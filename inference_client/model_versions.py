"""The versions of a model, as the server lists them."""

from datetime import datetime

from inference_client.answers import Answer
from inference_client.schemas import ArchiveView


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
