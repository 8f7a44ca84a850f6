"""Every error that the client raises. All of them carry a text for people and further facts as JSON members.

ReportedError
├── InferenceError             what the server answered, or that it cannot be reached
│   ├── ModelNotFound
│   │   └── DeploymentNotFound
│   ├── TaskPending
│   ├── TaskFailed
│   ├── OutputMissing
│   ├── InputMissing
│   ├── FileNotFound
│   ├── ConsumerNotFound
│   ├── TaskNotFound
│   │   └── TaskRecordNotFound
│   ├── KeyNotFound
│   ├── InvalidRequest
│   │   └── InvalidArchive
│   ├── TooLarge
│   ├── TooSlow
│   ├── TooManyStreams
│   ├── QuotaExceeded
│   ├── Conflict
│   │   ├── ModelExists
│   │   ├── ModelRetired
│   │   ├── ModelInUse
│   │   ├── IdempotencyConflict
│   │   └── NameTaken
│   ├── Unauthenticated
│   ├── PermissionDenied
│   ├── RouteNotFound
│   ├── ServiceUnavailable
│   └── StorageFull
└── ClientError                what went wrong on this side
    ├── UnusableInput
    ├── DamagedDownload
    ├── WaitTimeout
    ├── DeploymentFailing
    ├── CallFailed
    └── Interrupted
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from inference_client.terminal_text import printable


class ReportedError(Exception):
    """Base of both halves of the tree. The docstring of a server's error is its text where the server sent none."""

    def __init__(self, detail: str | None = None, **fields: Any) -> None:
        """`fields` that are None are left out."""
        self.detail = detail or " ".join((type(self).__doc__ or "").split())
        self.fields = {name: value for name, value in fields.items() if value is not None}
        # What a traceback shows.
        super().__init__(printable(self.detail))

    def to_body(self) -> dict[str, Any]:
        """The error as JSON, in the shape of the server's own error bodies."""
        return {**self.fields, "error": type(self).__name__, "detail": self.detail}


class InferenceError(ReportedError):
    """The server failed and does not know why; its operator finds the request in the log."""

    http_status: ClassVar[int] = 500


class ModelNotFound(InferenceError):
    """No model has this id."""

    http_status = 550


class DeploymentNotFound(ModelNotFound):
    """The model is not deployed."""

    http_status = 404


class TaskPending(InferenceError):
    """The task has not ended yet."""

    http_status = 551


class TaskFailed(InferenceError):
    """The task ended without an output; the reason and the end of its log say why."""

    http_status = 552


class OutputMissing(InferenceError):
    """The task finished, but its output is no longer stored."""

    http_status = 553


class InputMissing(InferenceError):
    """The task's input is no longer stored."""

    http_status = 410


class FileNotFound(InferenceError):
    """The task's input or output has no file with this path."""

    http_status = 404


class ConsumerNotFound(InferenceError):
    """No consumer of this name was ever seen."""

    http_status = 404


class TaskNotFound(InferenceError):
    """No task has this uid, or it was deleted."""

    http_status = 554


class TaskRecordNotFound(TaskNotFound):
    """No task has this uid, or it was deleted."""

    http_status = 404


class KeyNotFound(InferenceError):
    """No key that may be revoked has this id."""

    http_status = 404


class InvalidRequest(InferenceError):
    """The server does not accept a value of the request."""

    http_status = 422


class InvalidArchive(InvalidRequest):
    """The server does not accept the zip."""


class TooLarge(InferenceError):
    """The upload is larger than the server accepts."""

    http_status = 413


class TooSlow(InferenceError):
    """The upload arrived too slowly, and the server closed its connection."""

    http_status = 408


class TooManyStreams(InferenceError):
    """Too many streams of events are open."""

    http_status = 429


class QuotaExceeded(InferenceError):
    """A quota of the key's owner is used up; `quota`, `limit` and `used` among the fields say which, and how far."""

    http_status = 429


class Conflict(InferenceError):
    """The request contradicts what the server has stored."""

    http_status = 409


class ModelExists(Conflict):
    """A model with this id is registered already."""


class ModelRetired(Conflict):
    """The model, or this version of it, is retired: it takes no new tasks."""


class ModelInUse(Conflict):
    """Something still uses the model, or this version of it."""


class IdempotencyConflict(Conflict):
    """This idempotency key was used for a submission with other content."""


class NameTaken(Conflict):
    """Another deployment already answers to this prefix, application or model name."""


class Unauthenticated(InferenceError):
    """The request carried no valid key."""

    http_status = 401


class PermissionDenied(InferenceError):
    """The key does not allow this."""

    http_status = 403


class RouteNotFound(InferenceError):
    """The server does not know this call."""

    http_status = 404


class ServiceUnavailable(InferenceError):
    """The server, or a part of it, cannot be reached right now. Nothing was lost; try again."""

    http_status = 503


class StorageFull(InferenceError):
    """The server's disk is full; nothing of this request was kept."""

    http_status = 507


class ClientError(ReportedError):
    """Something went wrong on this side."""


class UnusableInput(ClientError):
    """What the caller gave (a path, a URL, a setting) cannot be used; nothing was sent, or the server kept nothing."""


class DamagedDownload(ClientError):
    """What arrived is not what the server stored; it was thrown away."""


class WaitTimeout(ClientError):
    """The task has not ended, or the deployment is not ready, in the time the caller gave; neither was stopped."""


class DeploymentFailing(ClientError):
    """The deployment's replicas end by themselves; the server keeps trying."""


class CallFailed(ClientError):
    """A live call ended with a gRPC status other than OK; `code` is its name, such as NOT_FOUND."""

    def __init__(self, code: str, details: str, **fields: Any) -> None:
        super().__init__(details, code=code, **fields)
        self.code = code


class Interrupted(ClientError):
    """The user pressed Ctrl-C."""


def server_errors() -> Iterator[type[InferenceError]]:
    """Every class of the server's half, parents before children, in the order drawn above."""
    pending: list[type[InferenceError]] = [InferenceError]
    while pending:
        cls = pending.pop()
        yield cls
        pending.extend(reversed(cls.__subclasses__()))


def error_from_body(body: Mapping[str, Any], http_status: int) -> InferenceError:
    """The error that a server's JSON body names; where this client does not know the name, the status decides."""
    by_name = {cls.__name__: cls for cls in server_errors()}
    fields = {str(name): value for name, value in body.items() if name not in ("error", "detail")}
    text = body.get("detail") if isinstance(body.get("detail"), str) else None
    cls = by_name.get(str(body.get("error")))
    if cls is None:
        cls = next((cls for cls in server_errors() if cls.http_status == http_status), InferenceError)
        text = text or f"the server answered {http_status}"
    return cls(text, **fields)
