"""A failure of the model itself: recorded with a reason and shown to the user, never repeated."""

from contract.statuses import Reason


class ModelFailed(Exception):
    """The run ended without a usable output. `detail` is for the owner of the task."""

    def __init__(self, reason: Reason, detail: str, exit_code: int | None = None) -> None:
        self.reason = reason
        self.detail = detail
        self.exit_code = exit_code
        super().__init__(f"{reason}: {detail}")
