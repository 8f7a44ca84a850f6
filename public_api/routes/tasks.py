"""`/api/tasks/`: submitting, polling, fetching, cancelling and deleting tasks."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from contract.errors import (
    IdempotencyConflict,
    ModelNotFound,
    OutputMissing,
    TaskFailed,
    TaskNotFound,
    TaskPending,
    TaskRecordNotFound,
)
from contract.http_errors import ZIP_ANSWER, ZIP_BODY, document_errors
from contract.schemas import ListQuery, LogQuery, ModelRegistration, ModelView, TaskPoll, TaskSubmission, TaskView
from public_api.relay import UPLOAD_PATIENCE_S, Relay
from public_api.routes.models import REGISTRATION_ERRORS, forward_registration
from public_api.routes.parameters import RecordUid, Uid, describe_query, document_download, document_submission

_POLL_ANSWERS: dict[int | str, dict[str, Any]] = {
    **ZIP_ANSWER,
    **document_errors(TaskPending, TaskFailed, OutputMissing, TaskNotFound),
}
_OUTPUT_ANSWERS: dict[int | str, dict[str, Any]] = {
    **_POLL_ANSWERS,
    206: {"description": "The range that was asked for."},
    304: {"description": "The output is the one that `If-None-Match` names."},
    416: {"description": "The range lies outside the output."},
}


def task_routes(relay: Relay) -> APIRouter:
    """The routes over `relay`."""
    router = APIRouter(prefix="/api/tasks", tags=["tasks"])
    _add_submission(router, relay)
    _add_downloads(router, relay)
    _add_records(router, relay)
    return router


def _add_submission(router: APIRouter, relay: Relay) -> None:
    async def pick_query(request: Request) -> ModelRegistration | TaskSubmission:
        given = dict(request.query_params)
        schema: type[ModelRegistration | TaskSubmission] = TaskSubmission
        if "container_tag" in given:
            schema = ModelRegistration
        try:
            return schema.model_validate(given)
        except ValidationError as error:
            faults = [{**fault, "loc": ("query", *fault["loc"])} for fault in error.errors()]
            raise RequestValidationError(faults) from error

    @router.post("", include_in_schema=False, dependencies=[Depends(document_submission)])
    @router.post(
        "/",
        response_model=str | ModelView,
        openapi_extra={"parameters": describe_query(TaskSubmission, ModelRegistration), **ZIP_BODY},
        responses=document_errors(ModelNotFound, IdempotencyConflict, *REGISTRATION_ERRORS),
        dependencies=[Depends(document_submission)],
    )
    async def submit(
        request: Request, query: Annotated[ModelRegistration | TaskSubmission, Depends(pick_query)]
    ) -> Response:
        """Submit a zip to the model `human_readable_id`; the answer is the uid of the new task.

        With `container_tag` this is the same call as `POST /api/models/`: it takes that call's parameters and answers
        the model. Without it, only `human_readable_id` (or `model_human_readable_id`) is taken.
        """
        if isinstance(query, ModelRegistration):
            return forward_registration(relay, request, query)
        return relay.forward(request, "/api/tasks/", query=query, with_body=True, patience_s=UPLOAD_PATIENCE_S)


def _add_downloads(router: APIRouter, relay: Relay) -> None:
    headers = [Depends(document_download)]

    @router.get("/{uid}", response_class=Response, responses=_POLL_ANSWERS, dependencies=headers)
    async def poll(request: Request, uid: Uid, query: Annotated[TaskPoll, Query()]) -> Response:
        """The output zip, or one of the codes 551 to 554. `wait` holds the answer until the task ends."""
        return relay.forward(request, f"/api/tasks/{uid}", query=query)

    @router.head("/{uid}", response_class=Response, responses=_POLL_ANSWERS)
    async def probe(request: Request, uid: Uid) -> Response:
        """The code and the headers of the poll, at once and without a body."""
        return relay.forward(request, f"/api/tasks/{uid}")

    @router.get("/{uid}/output", response_class=Response, responses=_OUTPUT_ANSWERS, dependencies=headers)
    async def fetch_output(request: Request, uid: Uid) -> Response:
        """The output zip with `ETag` (its sha256), `Content-Length` and one `Range`."""
        return relay.forward(request, f"/api/tasks/{uid}/output")

    @router.head("/{uid}/output", response_class=Response, responses=_OUTPUT_ANSWERS)
    async def probe_output(request: Request, uid: Uid) -> Response:
        """The headers of the output."""
        return relay.forward(request, f"/api/tasks/{uid}/output")


def _add_records(router: APIRouter, relay: Relay) -> None:
    not_found = document_errors(TaskNotFound)

    @router.get("", include_in_schema=False)
    @router.get("/", response_model=list[TaskView])
    async def list_own(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
        """The tasks of the key's owner, newest first; `after` is the last uid of the page before. Needs a key.

        `position`, `eta` and `log_tail` are null here; a task's `/status` has them.
        """
        return relay.forward(request, "/api/tasks/", query=query)

    @router.get("/{uid}/status", response_model=TaskView, responses=document_errors(TaskRecordNotFound))
    async def show_status(request: Request, uid: RecordUid, query: Annotated[TaskPoll, Query()]) -> Response:
        """The whole task as JSON with a plain 200, or 404: for tools that trip over 55x."""
        return relay.forward(request, f"/api/tasks/{uid}/status", query=query)

    @router.get(
        "/{uid}/logs",
        response_class=Response,
        responses={**not_found, 200: {"description": "The log.", "content": {"text/plain": {}}}},
    )
    async def show_log(request: Request, uid: Uid, query: Annotated[LogQuery, Query()]) -> Response:
        """What the container wrote to stdout and stderr, of the newest attempt."""
        # A followed log may be silent for as long as the task runs.
        return relay.forward(request, f"/api/tasks/{uid}/logs", query=query, patience_s=None)

    @router.post("/{uid}/cancel", response_model=TaskView, responses=not_found)
    async def cancel(request: Request, uid: Uid) -> Response:
        """Cancel the task and keep its record. A task that has ended stays as it is."""
        return relay.forward(request, f"/api/tasks/{uid}/cancel")

    @router.delete("/{uid}", status_code=204, response_class=Response, responses=not_found)
    async def delete(request: Request, uid: Uid) -> Response:
        """Cancel what runs and delete what is stored. Deleting again is fine."""
        return relay.forward(request, f"/api/tasks/{uid}")
