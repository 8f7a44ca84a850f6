"""What a consumer learns when it registers."""

from pydantic import Field

from contract.schemas import Message


class Registered(Message):
    """Which server it is."""

    server_id: str = Field(description="Put on all that the consumer runs: other servers may use the same Engine.")
