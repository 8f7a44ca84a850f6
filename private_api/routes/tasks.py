"""`/api/tasks/`: what clients do with tasks."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from contract.access import Caller, Scope
from contract.errors import (
    IdempotencyConflict,
    InputMissing,
    InvalidArchive,
    InvalidRequest,
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
    TooLarge,
)
from contract.history import AttemptView, EventView
from contract.overview import TaskListQuery
from contract.queries import LogQuery, TaskPoll, TaskSubmission
from contract.reruns import TaskRerun
from contract.schemas import TaskView
from contract.zip_rules import check_archive
from kit.http_errors import document_errors
from kit.openapi import ZIP_ANSWER, ZIP_BODY
from private_api.audit.record import record_alone
from private_api.audit_tables import Action
from private_api.placement.outlook import find_output, show_task
from private_api.routes.access import GivenCaller
from private_api.routes.answers import ZipResponse, follow_log, noticed, read_log
from private_api.routes.json_bodies import JsonRouter
from private_api.services import Services
from private_api.tasks.cancel import cancel_task, delete_task
from private_api.tasks.files import check_reader
from private_api.tasks.history import list_attempts, list_events
from private_api.tasks.listing import list_tasks
from private_api.tasks.read import find_log, is_ended
from private_api.tasks.rerun import RerunOptions, rerun_task
from private_api.tasks.submit import check_submission, submit_task
from private_api.uploads import announced_bytes, receive_zip

_POLL_ERRORS = (TaskPending, TaskFailed, OutputMissing, TaskNotFound)
_IdempotencyKey = Annotated[
    str | None, Header(min_length=1, max_length=255, description="The same key and zip answer the same uid.")
]


def task_routes(services: Services) -> APIRouter:
    router = JsonRouter(prefix="/api/tasks", tags=["tasks"])
    _add_list(router, services)
    _add_tasks(router, services)
    _add_history(router, services)
    return router


def _check_submission(caller: Caller, priority: int) -> None:
    caller.require_submit()
    if priority > 0:
        caller.require(Scope.OPERATE, "A priority above 0 needs a key with the scope operate.")


def _add_list(router: APIRouter, services: Services) -> None:
    database, store = services.database, services.store

    @router.post(
        "/",
        name="submit_task",
        openapi_extra=dict(ZIP_BODY),
        responses=document_errors(
            PermissionDenied,
            ModelNotFound,
            ModelRetired,
            InvalidRequest,
            InvalidArchive,
            TooLarge,
            IdempotencyConflict,
            QuotaExceeded,
            StorageFull,
        ),
    )
    async def submit(
        request: Request,
        query: Annotated[TaskSubmission, Query()],
        caller: GivenCaller,
        idempotency_key: _IdempotencyKey = None,
    ) -> str:
        """Submit a zip to a model; the answer is the uid of the new task."""
        _check_submission(caller, query.priority)
        names = {name for name in (query.human_readable_id, query.model_human_readable_id) if name}
        if len(names) != 1:
            raise InvalidRequest("name the model in the query: ?human_readable_id=...")
        (reference,) = names
        await run_in_threadpool(
            check_submission,
            database,
            reference,
            idempotency_key=idempotency_key,
            caller=caller,
            defaults=services.quotas,
            size_bytes=announced_bytes(request),
        )
        with services.upload_place(caller):
            async with receive_zip(request, store, max_bytes=services.max_upload_bytes) as upload:
                await run_in_threadpool(
                    check_archive,
                    upload.path,
                    max_unpacked_bytes=services.sizes.max_unpacked_bytes,
                    max_entries=services.sizes.max_entries,
                    while_large=services.large_archives,
                )
                uid = await run_in_threadpool(
                    submit_task,
                    database,
                    store,
                    upload,
                    reference=reference,
                    idempotency_key=idempotency_key,
                    caller=caller,
                    priority=query.priority,
                    label=query.label,
                    defaults=services.quotas,
                )
        services.ring()
        return uid

    @router.get("/", name="list_tasks")
    def list_visible(query: Annotated[TaskListQuery, Query()], caller: GivenCaller) -> list[TaskView]:
        """The tasks that the caller may see, newest first; `after` is the last uid of the page before. Needs a key."""
        return list_tasks(database, caller, query)


def _add_tasks(router: APIRouter, services: Services) -> None:
    database, store, logs = services.database, services.store, services.logs

    async def wait_until_ended(request: Request, uid: str, caller: Caller, seconds: float) -> None:
        """Return when the task has ended, the time is up or the client has gone. Raises `TaskNotFound`."""
        ends_at = asyncio.get_running_loop().time() + seconds
        async with services.watch.watch(uid) as watcher, noticed(request, watcher) as client:
            while not await run_in_threadpool(is_ended, database, uid, caller):
                left = ends_at - asyncio.get_running_loop().time()
                if left <= 0 or client.is_gone:
                    return
                await watcher.told(left)

    @router.get("/{uid}", response_class=Response, responses={**ZIP_ANSWER, **document_errors(*_POLL_ERRORS)})
    async def poll_task(
        request: Request, uid: str, query: Annotated[TaskPoll, Query()], caller: GivenCaller
    ) -> Response:
        """The output zip, or one of the codes 551 to 554. `wait` holds the answer until the task ends."""
        if query.wait:
            await wait_until_ended(request, uid, caller, query.wait)
        output = await run_in_threadpool(find_output, database, store, logs, uid, caller, recent=services.recent)
        await run_in_threadpool(record_alone, database, caller, Action.READ_OUTPUT, uid)
        return ZipResponse(services, output, warning_count=output.warning_count)

    @router.get("/{uid}/status", name="show_task", responses=document_errors(TaskRecordNotFound))
    async def status(request: Request, uid: str, query: Annotated[TaskPoll, Query()], caller: GivenCaller) -> TaskView:
        """The whole task as JSON with a plain 200, or 404: for tools that trip over 55x."""
        try:
            if query.wait:
                await wait_until_ended(request, uid, caller, query.wait)
            return await run_in_threadpool(show_task, database, logs, uid, caller, recent=services.recent)
        except TaskNotFound as error:
            raise TaskRecordNotFound from error

    @router.get("/{uid}/output", response_class=Response, responses={**ZIP_ANSWER, **document_errors(*_POLL_ERRORS)})
    @router.head("/{uid}/output", include_in_schema=False)
    @router.head("/{uid}", include_in_schema=False)
    def fetch_output(request: Request, uid: str, caller: GivenCaller) -> Response:
        """The output zip with `ETag` (its sha256), `Content-Length` and one `Range`."""
        output, known = (
            find_output(database, store, logs, uid, caller, recent=services.recent),
            request.headers.get("if-none-match"),
        )
        if request.method != "HEAD":
            record_alone(database, caller, Action.READ_OUTPUT, uid)
        return ZipResponse(services, output, known, warning_count=output.warning_count)

    @router.get("/{uid}/logs", response_class=Response, responses=document_errors(PermissionDenied, TaskNotFound))
    async def show_log(uid: str, query: Annotated[LogQuery, Query()], caller: GivenCaller) -> Response:
        """What the container wrote to stdout and stderr, of the newest attempt."""
        await run_in_threadpool(check_reader, database, uid, caller)
        fence, _ = await run_in_threadpool(find_log, database, uid, caller)
        await run_in_threadpool(record_alone, database, caller, Action.READ_LOG, uid)
        chunks = follow_log(services, uid, caller) if query.follow else read_log(logs, uid, fence)
        return StreamingResponse(chunks, media_type="text/plain; charset=utf-8")

    @router.post("/{uid}/cancel", name="cancel_task", responses=document_errors(TaskNotFound))
    def cancel(uid: str, caller: GivenCaller) -> TaskView:
        """Cancel the task and keep its record. A task that has ended stays as it is."""
        cancel_task(database, uid, caller)
        services.watch.notify(uid)
        return show_task(database, logs, uid, caller)

    @router.post(
        "/{uid}/rerun",
        name="rerun_task",
        responses=document_errors(
            PermissionDenied,
            TaskNotFound,
            ModelNotFound,
            ModelRetired,
            InputMissing,
            IdempotencyConflict,
            QuotaExceeded,
            StorageFull,
        ),
    )
    def rerun(
        uid: str, query: Annotated[TaskRerun, Query()], caller: GivenCaller, idempotency_key: _IdempotencyKey = None
    ) -> str:
        """Queue a new task with the stored input of this one; the answer is the uid of the new task."""
        _check_submission(caller, query.priority)
        options = RerunOptions(query.version, query.priority, idempotency_key)
        new_uid = rerun_task(database, store, uid, caller, options, defaults=services.quotas)
        services.ring()
        return new_uid

    @router.delete("/{uid}", name="delete_task", status_code=204, responses=document_errors(TaskNotFound))
    def delete(uid: str, caller: GivenCaller) -> None:
        """Cancel what runs and delete what is stored. Deleting again is fine."""
        delete_task(database, uid, caller)
        services.watch.notify(uid)
        services.sweep()


def _add_history(router: APIRouter, services: Services) -> None:
    database = services.database

    @router.get("/{uid}/events", name="list_events", responses=document_errors(TaskNotFound))
    def events(uid: str, caller: GivenCaller) -> list[EventView]:
        """Every change of the task's status, oldest first."""
        return list_events(database, uid, caller)

    @router.get("/{uid}/attempts", name="list_attempts", responses=document_errors(TaskNotFound))
    def attempts(uid: str, caller: GivenCaller) -> list[AttemptView]:
        """Every attempt of the task, oldest first."""
        return list_attempts(database, uid, caller)
