"""Every error that crosses a service border, with its HTTP status and its gRPC code.

    InferenceError
    ├── ModelNotFound
    │   └── DeploymentNotFound
    ├── TaskPending
    ├── TaskFailed
    ├── OutputMissing
    ├── InputMissing
    ├── FileNotFound
    ├── ConsumerNotFound
    ├── TaskNotFound
    │   └── TaskRecordNotFound
    ├── KeyNotFound
    ├── InvalidRequest
    │   └── InvalidArchive
    ├── TooLarge
    ├── TooSlow
    ├── TooManyStreams
    ├── QuotaExceeded
    ├── Conflict
    │   ├── ModelExists
    │   ├── ModelRetired
    │   ├── ModelInUse
    │   ├── IdempotencyConflict
    │   ├── NameTaken
    │   └── StaleFence
    ├── Unauthenticated
    ├── PermissionDenied
    ├── RouteNotFound
    ├── ServiceUnavailable
    └── StorageFull

Of the server, only this file knows the customer's polling codes (550 to 554). An error keeps its name across every hop:
`to_body` renders it, `error_from_body` turns the body back into the same class.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, Field

from contract.quotas import Quota
from contract.statuses import Reason, Status, WaitsFor
from kit.errors import ServiceError


class ErrorBody(BaseModel):
    """Every error's body. Members beside `error` and `detail` are there where they apply."""

    error: str = Field(description="The name of the error.")
    detail: str = Field(description="What happened and what to do, for people.")
    request: str | None = Field(None, description="The request id, of an error that the server cannot explain.")
    status: Status | None = Field(None, description="How the task stands.")
    reason: Reason | None = Field(None, description="Why the task failed.")
    position: int | None = Field(None, description="How many queued tasks will be claimed before this one.")
    eta: float | None = Field(None, description="Estimated seconds until the task ends.")
    waits_for: WaitsFor | None = Field(None, description="What keeps the task from running.")
    wait_detail: str | None = Field(None, description="The same in a sentence, with what can be done about it.")
    pull_percent: int | None = Field(None, description="How much of the task's image was pulled.")
    progress: float | None = Field(None, description="How far the task's run is, between 0 and 1, as the model says.")
    attempt: int | None = Field(None, description="How often a consumer claimed the task.")
    exit_code: int | None = Field(None, description="How the container ended.")
    log_tail: str | None = Field(None, description="The end of a failed task's log.")
    quota: Quota | None = Field(None, description="The quota that is used up.")
    limit: int | None = Field(None, description="The most that the quota allows.")
    used: int | None = Field(None, description="What of the quota was used before this request.")


class InferenceError(ServiceError):
    """The server failed and does not know why; the operator finds the request id in the log."""

    body = ErrorBody


class ModelNotFound(InferenceError):
    """No model has this human_readable_id. GET /api/models/ lists the registered ones."""

    http_status = 550
    grpc_code = "NOT_FOUND"


class DeploymentNotFound(ModelNotFound):
    """The model is not deployed; POST /api/models/<human_readable_id>/deployment keeps it warm."""

    # Calls about deployments promise plain HTTP codes.
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


class InputMissing(InferenceError):
    """The task's input is no longer stored. Submit it again."""

    http_status = 410
    grpc_code = "DATA_LOSS"


class FileNotFound(InferenceError):
    """No file has this path. Paths are exact, as the list of files has them."""

    http_status = 404
    grpc_code = "NOT_FOUND"


class ConsumerNotFound(InferenceError):
    """No consumer of this name was ever seen."""

    http_status = 404
    grpc_code = "NOT_FOUND"


class TaskNotFound(InferenceError):
    """No task has this uid, or it was deleted."""

    http_status = 554
    grpc_code = "NOT_FOUND"


class TaskRecordNotFound(TaskNotFound):
    """No task has this uid, or it was deleted."""

    # For the routes that promise plain HTTP codes to tools that trip over 55x.
    http_status = 404


class KeyNotFound(InferenceError):
    """No key that the caller may revoke has this id. GET /api/keys/ lists them."""

    http_status = 404
    grpc_code = "NOT_FOUND"


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


class TooSlow(InferenceError):
    """The request arrived too slowly, and the door closed its connection: see `kit.http_pace`."""

    http_status = 408
    grpc_code = "DEADLINE_EXCEEDED"


class TooManyStreams(InferenceError):
    """Too many streams of events are open; close one that nobody reads."""

    http_status = 429
    grpc_code = "RESOURCE_EXHAUSTED"
    retry_after_s = 30


class QuotaExceeded(InferenceError):
    """A quota of this key's owner is used up; `infer quota` shows them all."""

    http_status = 429
    grpc_code = "RESOURCE_EXHAUSTED"

    def __init__(self, detail: str | None = None, *, retry_after_s: int | None = None, **fields: Any) -> None:
        """`retry_after_s` is when time alone makes room; None where somebody has to do something."""
        super().__init__(detail, **fields)
        self.retry_after_s = retry_after_s


class Conflict(InferenceError):
    """The request contradicts what is stored."""

    http_status = 409
    grpc_code = "ALREADY_EXISTS"


class ModelExists(Conflict):
    """A model with this human_readable_id is registered already; replace=true makes a new version of it."""


class ModelRetired(Conflict):
    """The model, or this version of it, is retired: it takes no new tasks. Name another one, or bring it back first."""

    grpc_code = "FAILED_PRECONDITION"


class ModelInUse(Conflict):
    """Something still uses the model, or this version of it."""

    grpc_code = "FAILED_PRECONDITION"


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
    """The error that `to_body` rendered or, for a foreign body, the first class with this `http_status`."""
    by_name = {cls.__name__: cls for cls in error_classes()}
    fields = {str(name): value for name, value in body.items() if name not in ("error", "detail")}
    detail = body.get("detail")
    text = detail if isinstance(detail, str) else None
    cls = by_name.get(str(body.get("error")))
    if cls is None:
        cls = next((cls for cls in error_classes() if cls.http_status == http_status), InferenceError)
        text = text or f"the server answered {http_status}"
    return cls(text, **fields)
