"""How a consumer finds itself, which it says with each claim."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ConsumerHealth(BaseModel):
    """What keeps a consumer from running tasks, and which tasks fit on its disk."""

    model_config = ConfigDict(frozen=True)

    trouble: Annotated[
        str | None, Field(max_length=2048, description="Why it takes nothing, in a sentence; null if it is well.")
    ] = None
    free_bytes: Annotated[
        int | None,
        Field(ge=0, description="What a task may fill of its work folder's disk; null if it does not say."),
    ] = None
