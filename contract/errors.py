"""Every error that crosses a service border, with its HTTP status and its gRPC code.

    InferenceError
    ├── ModelNotFound
    │   └── DeploymentNotFound
    ├── TaskPending
    ├── TaskFailed
    ├── OutputMissing
    ├── TaskNotFound
    │   └── TaskRecordNotFound
    ├── InvalidRequest
    │   └── InvalidArchive
    ├── TooLarge
    ├── Conflict
    │   ├── ModelExists
    │   ├── IdempotencyConflict
    │   ├── NameTaken
    │   └── StaleFence
    ├── Unauthenticated
    ├── PermissionDenied
    ├── RouteNotFound
    ├── ServiceUnavailable
    └── StorageFull

The customer's polling codes (550 to 554) stand here and nowhere else. An error keeps its name across every hop:
`to_body` renders it, `error_from_body` turns the body back into the same class.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class InferenceError(Exception):
    """The server failed and does not know why; the operator finds the request id in the log."""

    http_status: ClassVar[int] = 500
    grpc_code: ClassVar[str] = "INTERNAL"
    retry_after_s: ClassVar[int | None] = None

    def __init__(self, detail: str | None = None, **fields: Any) -> None:
        """`detail` replaces the class's default message; `fields` are further JSON members (`None` is left out)."""
        self.detail = detail or " ".join((type(self).__doc__ or "").split())
        self.fields = {name: value for name, value in fields.items() if value is not None}
        super().__init__(self.detail)

    def to_body(self) -> dict[str, Any]:
        """The JSON body every service answers with."""
        return {**self.fields, "error": type(self).__name__, "detail": self.detail}


class ModelNotFound(InferenceError):
    """No model has this human_readable_id. GET /api/models/ lists the registered ones."""

    http_status = 550
    grpc_code = "NOT_FOUND"


class DeploymentNotFound(ModelNotFound):
    """The model is not deployed; POST /api/models/<human_readable_id>/deployment keeps it warm."""

    # For a call that promises plain HTTP codes, like everything about deployments.
    http_status = 404


class TaskPending(InferenceError):
    """The task has not ended yet. Ask again later, or hold the request with ?wait=60."""

    http_status = 551
    grpc_code = "FAILED_PRECONDITION"
    retry_after_s = 1


class TaskFailed(InferenceError):
    """The task ended without an output; the reason and the end of its log say why."""

    http_status = 552
    grpc_code = "ABORTED"


class OutputMissing(InferenceError):
    """The task finished, but its output is no longer stored."""

    http_status = 553
    grpc_code = "DATA_LOSS"


class TaskNotFound(InferenceError):
    """No task has this uid, or it was deleted."""

    http_status = 554
    grpc_code = "NOT_FOUND"


class TaskRecordNotFound(TaskNotFound):
    """No task has this uid, or it was deleted."""

    # For the routes that promise plain HTTP codes to tools that trip over 55x.
    http_status = 404


class InvalidRequest(InferenceError):
    """A parameter, header or body of the request is not acceptable."""

    http_status = 422
    grpc_code = "INVALID_ARGUMENT"


class InvalidArchive(InvalidRequest):
    """The zip is not acceptable."""


class TooLarge(InferenceError):
    """The body is larger than this server accepts."""

    http_status = 413
    grpc_code = "RESOURCE_EXHAUSTED"


class Conflict(InferenceError):
    """The request contradicts what is stored."""

    http_status = 409
    grpc_code = "ALREADY_EXISTS"


class ModelExists(Conflict):
    """A model with this human_readable_id is registered already; replace=true makes a new version of it."""


class IdempotencyConflict(Conflict):
    """This Idempotency-Key was used for a submission with other content."""


class NameTaken(Conflict):
    """Another deployment answers to this prefix, application or model name already."""


class StaleFence(Conflict):
    """This attempt no longer holds its task; stop its work and drop the result."""

    grpc_code = "ABORTED"


class Unauthenticated(InferenceError):
    """The request carries no valid key."""

    http_status = 401
    grpc_code = "UNAUTHENTICATED"


class PermissionDenied(InferenceError):
    """The caller may not do this."""

    http_status = 403
    grpc_code = "PERMISSION_DENIED"


class RouteNotFound(InferenceError):
    """There is nothing at this path; /docs lists what there is."""

    http_status = 404
    grpc_code = "UNIMPLEMENTED"


class ServiceUnavailable(InferenceError):
    """A part of the server cannot be reached right now. Nothing was lost; repeat the request."""

    http_status = 503
    grpc_code = "UNAVAILABLE"
    retry_after_s = 2


class StorageFull(InferenceError):
    """The server's disk is full; nothing of this request was kept."""

    http_status = 507
    grpc_code = "RESOURCE_EXHAUSTED"
    retry_after_s = 60


def error_classes() -> Iterator[type[InferenceError]]:
    """Every class of the tree, parents before children, in the order drawn above."""
    pending: list[type[InferenceError]] = [InferenceError]
    while pending:
        cls = pending.pop()
        yield cls
        pending.extend(reversed(cls.__subclasses__()))


def error_from_body(body: Mapping[str, Any], http_status: int) -> InferenceError:
    """The error that `to_body` rendered; for a body that is not ours, the class that owns `http_status`."""
    by_name = {cls.__name__: cls for cls in error_classes()}
    fields = {str(name): value for name, value in body.items() if name not in ("error", "detail")}
    detail = body.get("detail")
    text = detail if isinstance(detail, str) else None
    cls = by_name.get(str(body.get("error")))
    if cls is None:
        cls = next((cls for cls in error_classes() if cls.http_status == http_status), InferenceError)
        text = text or f"the server answered {http_status}"
    return cls(text, **fields)
