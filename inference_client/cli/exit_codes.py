"""The exit codes of `infer`, and which error ends with which."""

from enum import IntEnum

from inference_client.errors import (
    CallFailed,
    ConsumerNotFound,
    DamagedDownload,
    DeploymentFailing,
    FileNotFound,
    InferenceError,
    InputMissing,
    Interrupted,
    KeyNotFound,
    ModelNotFound,
    OutputMissing,
    ReportedError,
    RouteNotFound,
    TaskFailed,
    TaskNotFound,
    TaskPending,
    WaitTimeout,
)
from inference_client.statuses import Reason, Status


class ExitCode(IntEnum):
    """How a run of `infer` ended, for its caller. A number never changes its meaning."""

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
    ExitCode.TASK_FAILED: "the task failed, or the deployment does",
    ExitCode.USAGE: "wrong usage, or a local file that cannot be used",
    ExitCode.NOT_FOUND: "no such task, file, model, deployment, consumer, key, method or route",
    ExitCode.REFUSED: "the server refused the request",
    ExitCode.SERVER: "the server is unreachable, failed, or sent damaged data",
    ExitCode.OUTPUT_MISSING: "the task's output, or its input, is no longer stored",
    ExitCode.NOT_ENDED: "the task or call has not ended, or the deployment is not ready (in time)",
    ExitCode.CANCELLED: "the task or call was cancelled",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
}


_CODES: dict[type[Exception], ExitCode] = {
    TaskFailed: ExitCode.TASK_FAILED,
    DeploymentFailing: ExitCode.TASK_FAILED,
    ModelNotFound: ExitCode.NOT_FOUND,
    TaskNotFound: ExitCode.NOT_FOUND,
    KeyNotFound: ExitCode.NOT_FOUND,
    FileNotFound: ExitCode.NOT_FOUND,
    ConsumerNotFound: ExitCode.NOT_FOUND,
    RouteNotFound: ExitCode.NOT_FOUND,
    OutputMissing: ExitCode.OUTPUT_MISSING,
    InputMissing: ExitCode.OUTPUT_MISSING,
    TaskPending: ExitCode.NOT_ENDED,
    WaitTimeout: ExitCode.NOT_ENDED,
    Interrupted: ExitCode.INTERRUPTED,
    DamagedDownload: ExitCode.SERVER,
}

_STATUSES = {
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "UNIMPLEMENTED": ExitCode.NOT_FOUND,
    "DEADLINE_EXCEEDED": ExitCode.NOT_ENDED,
    "CANCELLED": ExitCode.CANCELLED,
    "UNAVAILABLE": ExitCode.SERVER,
    "INTERNAL": ExitCode.SERVER,
    "UNKNOWN": ExitCode.SERVER,
    "DATA_LOSS": ExitCode.SERVER,
}
"""By the gRPC status of a live call; any other status means that the request was refused."""


def exit_code_of(error: ReportedError | OSError) -> ExitCode:
    """The exit code for a run that ended with `error`."""
    if isinstance(error, TaskFailed) and _is_cancellation(error):
        return ExitCode.CANCELLED
    if isinstance(error, CallFailed):
        return _STATUSES.get(error.code, ExitCode.REFUSED)
    for cls, code in _CODES.items():
        if isinstance(error, cls):
            return code
    if isinstance(error, InferenceError):
        return ExitCode.REFUSED if 400 <= error.http_status < 500 else ExitCode.SERVER
    return ExitCode.USAGE


def _is_cancellation(error: TaskFailed) -> bool:
    return error.fields.get("status") == Status.CANCELLED or error.fields.get("reason") == Reason.CANCELLED
