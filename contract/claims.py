"""What a consumer says when it asks for work."""

from typing import Annotated

from pydantic import Field

from contract.consumer_health import ConsumerHealth
from contract.schemas import ConsumerRegistration, Message


class HeldAttempt(Message):
    """An attempt that a consumer has in hand."""

    uid: str
    fence: int
    is_delivering: Annotated[
        bool, Field(description="Its run has ended, and with it what it had of the GPU; its output is on its way.")
    ] = False


class ClaimRequest(ConsumerRegistration):
    """A consumer asks for work."""

    uid: str | None = Field(None, description="The task the bell named; it goes first where it is claimable.")
    number: Annotated[int, Field(ge=0, description="Grows with each claim of the process.")] = 0
    holds: Annotated[
        list[HeldAttempt] | None,
        Field(
            description="All that it runs, or will adopt at its next start: every other attempt of it goes back to the "
            "queue. Null from a consumer that does not say.",
        ),
    ] = None
    health: ConsumerHealth = ConsumerHealth()
    ahead: Annotated[
        bool,
        Field(
            description="It runs a task and would prepare the next one meanwhile. It is given one only where no other "
            "consumer is free for it, and must ask before that begins."
        ),
    ] = False
