"""What the holder of a task says of it, again and again, and is told."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from contract.schemas import Message, RanImage
from contract.statuses import Phase

MAX_PROGRESS_TEXT = 120


def _make_line(text: object) -> object:
    # A model wrote it: it is made one short line that steers no terminal, and never what a heartbeat is refused for.
    if not isinstance(text, str):
        return text
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:MAX_PROGRESS_TEXT]


class Progress(Message):
    """How far a run is, as its model says."""

    fraction: Annotated[float, Field(ge=0, le=1)]
    text: Annotated[str, BeforeValidator(_make_line)] = ""


class Heartbeat(Message):
    """The holder lives and says what it does."""

    consumer: str
    phase: Phase
    pull_percent: Annotated[
        int | None, Field(ge=0, le=100, description="How much of the image was pulled; null while none is.")
    ] = None
    image: RanImage = None
    is_ready: Annotated[
        bool, Field(description="All of an attempt that is prepared ahead is there: it waits for the task before it.")
    ] = False
    progress: Annotated[Progress | None, Field(description="What the model said last; null if it says nothing.")] = None


class HeartbeatReply(Message):
    """What the holder must know."""

    cancel: bool = Field(description="The owner wants the task to end; stop and report `cancelled`.")
    seconds_left: float = Field(description="Until the server ends this phase itself.")
