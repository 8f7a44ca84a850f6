"""`/api/tasks/`: submitting, polling, fetching, cancelling and deleting tasks."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError

from contract.errors import (
    IdempotencyConflict,
    InputMissing,
    ModelNotFound,
    ModelRetired,
    OutputMissing,
    PermissionDenied,
    QuotaExceeded,
    StorageFull,
    TaskFailed,
    TaskNotFound,
    TaskPending,
    TaskRecordNotFound,
)
from contract.history import AttemptView, EventView
from contract.overview import TaskListQuery
from contract.queries import LogQuery, ModelRegistration, TaskPoll, TaskSubmission
from contract.reruns import TaskRerun
from contract.schemas import MODEL_REFERENCE_LENGTH, UID_PATTERN, TaskView
from kit.http_errors import document_errors
from kit.openapi import ZIP_ANSWER, ZIP_BODY
from public_api.relay import UPLOAD_PATIENCE_S, Relay
from public_api.routes.examples import CANCELLED_TASK, EXAMPLE_TASK, EXAMPLE_UID, answer_example
from public_api.routes.models import UPLOAD_ERRORS, forward_registration
from public_api.routes.parameters import RecordUid, Uid, document_download, document_submission

_OUTPUT_ANSWERS: dict[int | str, dict[str, Any]] = {
    **ZIP_ANSWER,
    **document_errors(TaskPending, TaskFailed, OutputMissing, TaskNotFound),
    206: {**ZIP_ANSWER[200], "description": "The range that was asked for."},
    304: {"description": "The output is the one that `If-None-Match` names."},
    416: {"description": "The range lies outside the output."},
}

_NewUid = Annotated[
    str, Field(pattern=UID_PATTERN, description="The uid of the new task.", examples=[EXAMPLE_UID], title="Uid")
]


def _describe_submission() -> list[dict[str, Any]]:
    """OpenAPI of the query of a submission. What is accepted besides, the customer's older forms, is left out."""
    properties = TaskSubmission.model_json_schema()["properties"]
    model = properties["human_readable_id"]
    name = {
        "type": "string",
        "maxLength": MODEL_REFERENCE_LENGTH,
        "examples": ["spleen-segmentation", "spleen-segmentation@3"],
    }
    return [
        {
            "name": "human_readable_id",
            "in": "query",
            "required": True,
            "description": model["description"],
            "schema": name,
        },
        *(
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": properties[name]["description"],
                # Left out, not null, where there is none.
                "schema": properties[name].get("anyOf", [properties[name]])[0],
            }
            for name in ("priority", "label")
        ),
    ]


def task_routes(relay: Relay) -> APIRouter:
    router = APIRouter(prefix="/api/tasks", tags=["tasks"])
    _add_submission(router, relay)
    _add_downloads(router, relay)
    _add_records(router, relay)
    _add_history(router, relay)
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
        response_model=_NewUid,
        openapi_extra={"parameters": _describe_submission(), **ZIP_BODY},
        responses=document_errors(ModelNotFound, ModelRetired, IdempotencyConflict, *UPLOAD_ERRORS),
        dependencies=[Depends(document_submission)],
    )
    async def submit_task(
        request: Request, query: Annotated[ModelRegistration | TaskSubmission, Depends(pick_query)]
    ) -> Response:
        """Submit a zip to a model; the answer is the uid of the new task, once the task is durable."""
        # The customer posts models here, too.
        if isinstance(query, ModelRegistration):
            return forward_registration(relay, request, query)
        return relay.forward(request, "/api/tasks/", query=query, with_body=True, patience_s=UPLOAD_PATIENCE_S)


def _add_downloads(router: APIRouter, relay: Relay) -> None:
    headers = [Depends(document_download)]

    @router.get("/{uid}", response_class=Response, responses=_OUTPUT_ANSWERS, dependencies=headers)
    async def poll_task(request: Request, uid: Uid, query: Annotated[TaskPoll, Query()]) -> Response:
        """The output zip, or one of the codes 551 to 554. `wait` holds the answer until the task ends.

        Many HTTP libraries do not know these codes: with such a one, or a generated client, poll
        `/api/tasks/{uid}/status` and, once it says `finished`, fetch `/api/tasks/{uid}/output`.
        """
        return relay.forward(request, f"/api/tasks/{uid}", query=query)

    @router.head("/{uid}", response_class=Response, responses=_OUTPUT_ANSWERS)
    async def probe_task(request: Request, uid: Uid) -> Response:
        """The code and the headers of the poll, at once and without a body."""
        return relay.forward(request, f"/api/tasks/{uid}")

    @router.get("/{uid}/output", response_class=Response, responses=_OUTPUT_ANSWERS, dependencies=headers)
    async def fetch_output(request: Request, uid: Uid) -> Response:
        """The output zip with `ETag` (its sha256), `Content-Length` and one `Range`. A finished task answers 200.

        `X-Task-Warnings` says how many warnings the task has, if any; its `/status` has them.
        """
        return relay.forward(request, f"/api/tasks/{uid}/output")

    @router.head("/{uid}/output", response_class=Response, responses=_OUTPUT_ANSWERS)
    async def probe_output(request: Request, uid: Uid) -> Response:
        """The headers of the output."""
        return relay.forward(request, f"/api/tasks/{uid}/output")


def _add_records(router: APIRouter, relay: Relay) -> None:
    not_found = document_errors(TaskNotFound)

    @router.get("", include_in_schema=False)
    @router.get("/", response_model=list[TaskView], responses=answer_example([EXAMPLE_TASK]))
    async def list_tasks(request: Request, query: Annotated[TaskListQuery, Query()]) -> Response:
        """The tasks that the key may see, newest first: its owner's; with the scope `operate` everybody's.

        Every filter that is given must apply. `after` is the last uid of the page before. Needs a key. `position`,
        `eta` and `log_tail` are null and `warnings` is empty here; a task's `/status` has them. `detail`, `label` and
        `progress_text` are null for other owners' tasks without the scope `admin`.
        """
        return relay.forward(request, "/api/tasks/", query=query)

    @router.get(
        "/{uid}/status",
        response_model=TaskView,
        responses=answer_example(EXAMPLE_TASK) | document_errors(TaskRecordNotFound),
    )
    async def show_task(request: Request, uid: RecordUid, query: Annotated[TaskPoll, Query()]) -> Response:
        """The whole task as JSON with a plain 200, or 404: the poll for tools that do not know the codes from 550 up.

        `wait` holds the answer until the task ends. Once `status` is `finished`, `/api/tasks/{uid}/output` has the zip.
        """
        return relay.forward(request, f"/api/tasks/{uid}/status", query=query)

    @router.get(
        "/{uid}/logs",
        response_class=Response,
        responses={
            **not_found,
            **document_errors(PermissionDenied),
            200: {"description": "The log.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        },
    )
    async def show_log(request: Request, uid: Uid, query: Annotated[LogQuery, Query()]) -> Response:
        """What the container wrote to stdout and stderr, of the newest attempt.

        Of a line that is written anew after a carriage return, as progress bars are, the first and the last state;
        with `follow` its state about once a second while it moves.

        The log of another owner's task needs the scope `admin`.
        """
        # A followed log may be silent for as long as the task runs.
        return relay.forward(request, f"/api/tasks/{uid}/logs", query=query, patience_s=None)

    @router.post("/{uid}/cancel", response_model=TaskView, responses=answer_example(CANCELLED_TASK) | not_found)
    async def cancel_task(request: Request, uid: Uid) -> Response:
        """Cancel the task and keep its record. A task that has ended stays as it is."""
        return relay.forward(request, f"/api/tasks/{uid}/cancel")

    @router.post(
        "/{uid}/rerun",
        response_model=_NewUid,
        responses=document_errors(
            TaskNotFound, ModelNotFound, ModelRetired, InputMissing, IdempotencyConflict, QuotaExceeded, StorageFull
        ),
        dependencies=[Depends(document_submission)],
    )
    async def rerun_task(request: Request, uid: Uid, query: Annotated[TaskRerun, Query()]) -> Response:
        """Submit the stored input of a task again; the answer is the uid of the new task, once the task is durable.

        The first task may have ended or not, and may be deleted afterwards. The new one belongs to its owner, or
        without one to the key's. Needs the scope `submit`; a priority above 0 also `operate`.
        """
        return relay.forward(request, f"/api/tasks/{uid}/rerun", query=query)

    @router.delete("/{uid}", status_code=204, response_class=Response, responses=not_found)
    async def delete_task(request: Request, uid: Uid) -> Response:
        """Cancel what runs and delete what is stored. Deleting again is fine."""
        return relay.forward(request, f"/api/tasks/{uid}")


def _add_history(router: APIRouter, relay: Relay) -> None:
    not_found = document_errors(TaskNotFound)

    @router.get("/{uid}/events", response_model=list[EventView], responses=not_found)
    async def list_events(request: Request, uid: Uid) -> Response:
        """Every change of the task's status, oldest first."""
        return relay.forward(request, f"/api/tasks/{uid}/events")

    @router.get("/{uid}/attempts", response_model=list[AttemptView], responses=not_found)
    async def list_attempts(request: Request, uid: Uid) -> Response:
        """Every attempt of the task, oldest first: who ran it, when, and how that ended.

        `detail` is null for another owner's task without the scope `admin`.
        """
        return relay.forward(request, f"/api/tasks/{uid}/attempts")
