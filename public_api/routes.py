"""The relayed methods and paths, one by one: what is not listed here cannot be reached from outside."""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ValidationError

from contract.errors import (
    IdempotencyConflict,
    InvalidArchive,
    InvalidRequest,
    ModelExists,
    ModelNotFound,
    OutputMissing,
    PermissionDenied,
    ServiceUnavailable,
    StorageFull,
    TaskFailed,
    TaskNotFound,
    TaskPending,
    TaskRecordNotFound,
    TooLarge,
)
from contract.http_errors import ZIP_ANSWER, ZIP_BODY, document_errors
from contract.schemas import (
    MODEL_ID_PATTERN,
    UID_PATTERN,
    ListQuery,
    LogQuery,
    ModelRegistration,
    ModelView,
    TaskPoll,
    TaskSubmission,
    TaskView,
)
from public_api.relay import Relay

_POLL_ERRORS = (ServiceUnavailable, TaskPending, TaskFailed, OutputMissing, TaskNotFound)
_UPLOAD_ERRORS = (ServiceUnavailable, InvalidRequest, InvalidArchive, TooLarge, StorageFull)


def relay_of(request: Request) -> Relay:
    """The app's relay: it lives as long as the app's event loop."""
    relay: Relay = request.app.state.relay
    return relay


OpenRelay = Annotated[Relay, Depends(relay_of)]


def known_uid(uid: str) -> str:
    """Nothing but a well-formed uid becomes part of an onward path. Raises `TaskNotFound`."""
    if not re.fullmatch(UID_PATTERN, uid):
        raise TaskNotFound
    return uid


def known_record_uid(uid: str) -> str:
    """Like `known_uid`, for the route that promises plain HTTP codes. Raises `TaskRecordNotFound`."""
    if not re.fullmatch(UID_PATTERN, uid):
        raise TaskRecordNotFound
    return uid


Uid = Annotated[str, Depends(known_uid)]


def door_routes(*, allow_post_model: bool) -> APIRouter:
    """Models, tasks and health."""
    router = APIRouter()
    router.include_router(_model_routes(allow_post_model), prefix="/api/models", tags=["models"])
    router.include_router(_task_routes(allow_post_model), prefix="/api/tasks", tags=["tasks"])
    router.include_router(_health_routes())
    return router


def _model_routes(allow_post_model: bool) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/",
        response_model=ModelView,
        openapi_extra=dict(ZIP_BODY),
        responses=document_errors(*_UPLOAD_ERRORS, PermissionDenied, ModelExists),
    )
    @router.post("", include_in_schema=False)
    async def register_model(
        request: Request, relay: OpenRelay, _query: Annotated[ModelRegistration, Query()]
    ) -> Response:
        """Register a model, or with `replace=true` a new version of it."""
        _check_may_post(allow_post_model)
        return await relay.forward(request, "/api/models/")

    @router.get("/", response_model=list[ModelView], responses=document_errors(ServiceUnavailable))
    @router.get("", include_in_schema=False)
    async def list_models(request: Request, relay: OpenRelay, _query: Annotated[ListQuery, Query()]) -> Response:
        """The catalogue in the order of ids; `after` is the last id of the page before."""
        return await relay.forward(request, "/api/models/")

    @router.get(
        "/{human_readable_id}",
        response_model=ModelView,
        responses=document_errors(ServiceUnavailable, ModelNotFound),
    )
    async def show_model(request: Request, relay: OpenRelay, human_readable_id: str) -> Response:
        """One model in its newest version."""
        if not re.fullmatch(MODEL_ID_PATTERN, human_readable_id):
            raise ModelNotFound
        return await relay.forward(request, f"/api/models/{human_readable_id}")

    return router


def _task_routes(allow_post_model: bool) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/",
        response_model=str,
        openapi_extra=_submission_schema(),
        responses=document_errors(*_UPLOAD_ERRORS, ModelNotFound, IdempotencyConflict, PermissionDenied, ModelExists),
    )
    @router.post("", include_in_schema=False)
    async def submit(
        request: Request,
        relay: OpenRelay,
        _idempotency_key: Annotated[
            str | None,
            Header(alias="Idempotency-Key", max_length=255, description="The same key and zip answer the same uid."),
        ] = None,
    ) -> Response:
        """Submit a zip to a model; the answer is the uid of the new task.

        With `container_tag` in the query the call registers a model instead, exactly as `POST /api/models/` does.
        """
        if "container_tag" in request.query_params:
            _validate(ModelRegistration, request)
            _check_may_post(allow_post_model)
            return await relay.forward(request, "/api/models/")
        _validate(TaskSubmission, request)
        return await relay.forward(request, "/api/tasks/")

    @router.get("/{uid}", response_class=Response, responses={**ZIP_ANSWER, **document_errors(*_POLL_ERRORS)})
    @router.head("/{uid}", include_in_schema=False)
    async def poll(request: Request, relay: OpenRelay, uid: Uid, _query: Annotated[TaskPoll, Query()]) -> Response:
        """The output zip, or one of the codes 551 to 554. `wait` holds the answer until the task ends."""
        return await relay.forward(request, f"/api/tasks/{uid}")

    @router.get(
        "/{uid}/status",
        response_model=TaskView,
        responses=document_errors(ServiceUnavailable, TaskRecordNotFound),
    )
    async def status(
        request: Request,
        relay: OpenRelay,
        uid: Annotated[str, Depends(known_record_uid)],
        _query: Annotated[TaskPoll, Query()],
    ) -> Response:
        """The whole task as JSON with a plain 200, or 404: for tools that trip over 55x."""
        return await relay.forward(request, f"/api/tasks/{uid}/status")

    @router.get("/{uid}/output", response_class=Response, responses={**ZIP_ANSWER, **document_errors(*_POLL_ERRORS)})
    @router.head("/{uid}/output", include_in_schema=False)
    async def output(request: Request, relay: OpenRelay, uid: Uid) -> Response:
        """The output zip with `ETag` (its sha256), `Content-Length` and one `Range`."""
        return await relay.forward(request, f"/api/tasks/{uid}/output")

    @router.get("/{uid}/logs", response_class=Response, responses=document_errors(ServiceUnavailable, TaskNotFound))
    async def logs(request: Request, relay: OpenRelay, uid: Uid, _query: Annotated[LogQuery, Query()]) -> Response:
        """What the container wrote to stdout and stderr; `follow=true` streams it until the task ends."""
        return await relay.forward(request, f"/api/tasks/{uid}/logs")

    @router.post("/{uid}/cancel", response_model=TaskView, responses=document_errors(ServiceUnavailable, TaskNotFound))
    async def cancel(request: Request, relay: OpenRelay, uid: Uid) -> Response:
        """Cancel the task and keep its record. A task that has ended stays as it is."""
        return await relay.forward(request, f"/api/tasks/{uid}/cancel")

    @router.delete("/{uid}", status_code=204, responses=document_errors(ServiceUnavailable, TaskNotFound))
    async def delete(request: Request, relay: OpenRelay, uid: Uid) -> Response:
        """Cancel what runs and delete what is stored. Deleting again is fine."""
        return await relay.forward(request, f"/api/tasks/{uid}")

    return router


def _health_routes() -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/", include_in_schema=False)
    def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    @router.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @router.get("/readyz", response_model=dict[str, str], responses=document_errors(ServiceUnavailable))
    async def readyz(request: Request, relay: OpenRelay) -> Response:
        """The private API and its database answer; 503 says which does not."""
        return await relay.forward(request, "/readyz")

    return router


def _check_may_post(allow_post_model: bool) -> None:
    if not allow_post_model:
        raise PermissionDenied("models cannot be posted here; the operator allows it with ALLOW_PUBLIC_POST_MODEL=1")


def _validate(schema: type[BaseModel], request: Request) -> None:
    """One path serves two calls, so FastAPI cannot pick the schema. Raises the error that its own check would."""
    try:
        schema.model_validate(dict(request.query_params))
    except ValidationError as error:
        faults = [{**fault, "loc": ("query", *fault["loc"])} for fault in error.errors(include_url=False)]
        raise RequestValidationError(faults) from error


def _submission_schema() -> dict[str, object]:
    """OpenAPI of the call that submits a task or, with `container_tag`, registers a model."""
    parameters = {}
    for schema in (ModelRegistration, TaskSubmission):
        described = schema.model_json_schema()
        for name, details in described["properties"].items():
            parameters[name] = {"name": name, "in": "query", "required": False, "schema": details} | (
                {"description": details["description"]} if "description" in details else {}
            )
    return {**ZIP_BODY, "parameters": list(parameters.values())}
