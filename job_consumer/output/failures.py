"""A failure of the model itself: recorded with a reason and shown to the user, never repeated."""

from errno import EACCES, ELOOP, ENOENT, ENOTDIR, ENXIO, EPERM

from contract.statuses import Reason

_MODELS_FAULTS = frozenset({EACCES, ELOOP, ENOENT, ENOTDIR, ENXIO, EPERM})


class ModelFailed(Exception):
    """The run ended without a usable output.

    `detail` may name files and quote the run's log, so it is for the owner of the task alone. `said` is what the engine
    said, for the operator's log.
    """

    def __init__(self, reason: Reason, detail: str, exit_code: int | None = None, *, said: str | None = None) -> None:
        self.reason = reason
        self.detail = detail
        self.exit_code = exit_code
        self.operators_text = _tell_operators(reason, exit_code, said)
        super().__init__(f"{reason}: {said or detail}")


def _tell_operators(reason: Reason, exit_code: int | None, said: str | None) -> str:
    code = "" if exit_code is None else f" exit_code={exit_code}"
    return f"reason={reason}{code}{f': {said}' if said else '; its status and its log say more to its owner'}"


def is_models_fault(error: OSError) -> bool:
    """Whether reading /output failed because of what the model left there (a lock, a change), not our disk."""
    return error.errno in _MODELS_FAULTS
