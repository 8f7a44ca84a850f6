"""A failure of the model itself: recorded with a reason and shown to the user, never repeated."""

from errno import EACCES, ELOOP, ENOENT, ENOTDIR, ENXIO, EPERM

from contract.statuses import Reason

_MODELS_FAULTS = frozenset({EACCES, ELOOP, ENOENT, ENOTDIR, ENXIO, EPERM})


class ModelFailed(Exception):
    """The run ended without a usable output. `detail` is for the owner of the task, `said` for the log in its place."""

    def __init__(self, reason: Reason, detail: str, exit_code: int | None = None, *, said: str | None = None) -> None:
        self.reason = reason
        self.detail = detail
        self.exit_code = exit_code
        super().__init__(f"{reason}: {said or detail}")


def is_models_fault(error: OSError) -> bool:
    """Whether reading /output failed because of what the model left there (a lock, a change), not our disk."""
    return error.errno in _MODELS_FAULTS
