"""The exit codes of `infer`: which there are and which error means which."""

from enum import IntEnum

from contract.errors import (
    InferenceError,
    ModelNotFound,
    OutputMissing,
    RouteNotFound,
    TaskFailed,
    TaskNotFound,
    TaskPending,
)
from contract.statuses import Reason, Status
from inference_client.errors import ClientError, DamagedDownload, Interrupted, WaitTimeout


class ExitCode(IntEnum):
    """What `infer` tells its caller. Numbers never change their meaning."""

    OK = 0
    TASK_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    SERVER = 5
    OUTPUT_MISSING = 6
    NOT_ENDED = 7
    CANCELLED = 8
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.TASK_FAILED: "the task failed",
    ExitCode.USAGE: "wrong usage, or a local file that cannot be used",
    ExitCode.NOT_FOUND: "no such task, model or route",
    ExitCode.REFUSED: "the server refused the request",
    ExitCode.SERVER: "the server is unreachable, failed, or sent damaged data",
    ExitCode.OUTPUT_MISSING: "the task finished, but its output is no longer stored",
    ExitCode.NOT_ENDED: "the task has not ended (in time)",
    ExitCode.CANCELLED: "the task was cancelled",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
}


def exit_code_of(error: InferenceError | ClientError | OSError) -> ExitCode:
    """The code that stands for `error`."""
    match error:
        case TaskFailed():
            return ExitCode.CANCELLED if _is_cancellation(error) else ExitCode.TASK_FAILED
        case ModelNotFound() | TaskNotFound() | RouteNotFound():
            return ExitCode.NOT_FOUND
        case OutputMissing():
            return ExitCode.OUTPUT_MISSING
        case TaskPending() | WaitTimeout():
            return ExitCode.NOT_ENDED
        case Interrupted():
            return ExitCode.INTERRUPTED
        case InferenceError():
            return ExitCode.REFUSED if 400 <= error.http_status < 500 else ExitCode.SERVER
        case DamagedDownload():
            return ExitCode.SERVER
        case _:
            return ExitCode.USAGE


def _is_cancellation(error: TaskFailed) -> bool:
    return error.fields.get("status") == Status.CANCELLED or error.fields.get("reason") == Reason.CANCELLED
