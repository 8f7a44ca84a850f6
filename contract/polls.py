"""Polls that a door makes together: many clients ask at once, and one call answers them."""

from typing import Annotated

from pydantic import BaseModel, Field

from contract.schemas import UID_PATTERN

MAX_POLLS = 500
"""In one call."""
LONGEST_KEY = 1000
"""In characters; ten times as long as a key is."""


class Poll(BaseModel):
    """A client's `GET /api/tasks/{uid}` without a query."""

    uid: Annotated[str, Field(pattern=UID_PATTERN)]
    key: Annotated[str | None, Field(max_length=LONGEST_KEY)]
    """What the client shows as its key."""


class PollBatch(BaseModel):
    """Polls of any clients of a door, in any order."""

    polls: Annotated[list[Poll], Field(max_length=MAX_POLLS)]


class PollAnswers(BaseModel):
    """An answer for each poll of the batch, in the same order."""

    bodies: list[str | None]
    """The JSON of `TaskPending` for a task that is queued; None for whatever else: that poll is relayed by itself."""
