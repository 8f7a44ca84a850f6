"""`/api/tasks/`: what clients do with tasks."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from contract.access import Scope
from contract.errors import (
    IdempotencyConflict,
    InvalidArchive,
    InvalidRequest,
    ModelNotFound,
    OutputMissing,
    PermissionDenied,
    StorageFull,
    TaskFailed,
    TaskNotFound,
    TaskPending,
    TaskRecordNotFound,
    TooLarge,
)
from contract.http_errors import ZIP_ANSWER, ZIP_BODY, document_errors
from contract.schemas import ListQuery, LogQuery, TaskPoll, TaskSubmission, TaskView
from contract.zip_rules import check_archive
from private_api.callers import Caller
from private_api.models import show_model
from private_api.routes.access import GivenCaller
from private_api.routes.answers import ZipResponse, follow_log, read_log
from private_api.services import Services
from private_api.tasks.cancel import cancel_task, delete_task
from private_api.tasks.read import find_log, find_output, is_ended, list_tasks, show_task
from private_api.tasks.submit import submit_task
from private_api.uploads import receive_zip

_POLL_ERRORS = (TaskPending, TaskFailed, OutputMissing, TaskNotFound)


def task_routes(services: Services) -> APIRouter:
    """The routes over `services`."""
    router = APIRouter(prefix="/api/tasks", tags=["tasks"])
    _add_list(router, services)
    _add_tasks(router, services)
    return router


def _add_list(router: APIRouter, services: Services) -> None:
    database, store = services.database, services.store

    @router.post(
        "/",
        openapi_extra=dict(ZIP_BODY),
        responses=document_errors(
            PermissionDenied, ModelNotFound, InvalidArchive, TooLarge, IdempotencyConflict, StorageFull
        ),
    )
    async def submit(
        request: Request,
        query: Annotated[TaskSubmission, Query()],
        caller: GivenCaller,
        idempotency_key: Annotated[
            str | None,
            Header(min_length=1, max_length=255, description="The same key and zip answer the same uid."),
        ] = None,
    ) -> str:
        """Submit a zip to a model; the answer is the uid of the new task."""
        caller.require(Scope.SUBMIT, "This key may not submit tasks: it lacks the scope submit.")
        if query.priority > 0:
            caller.require(Scope.OPERATE, "A priority above 0 needs a key with the scope operate.")
        names = {name for name in (query.human_readable_id, query.model_human_readable_id) if name}
        if len(names) != 1:
            raise InvalidRequest("name the model in the query: ?human_readable_id=...")
        (name,) = names
        await run_in_threadpool(show_model, database, name)
        async with receive_zip(request, store, max_bytes=services.max_upload_bytes) as upload:
            await run_in_threadpool(check_archive, upload.path, max_unpacked_bytes=services.sizes.max_unpacked_bytes)
            uid = await run_in_threadpool(
                submit_task,
                database,
                store,
                upload,
                human_readable_id=name,
                idempotency_key=idempotency_key,
                caller=caller,
                priority=query.priority,
            )
        services.ring()
        return uid

    @router.get("/")
    def list_own(query: Annotated[ListQuery, Query()], caller: GivenCaller) -> list[TaskView]:
        """The caller's own tasks, newest first; `after` is the last uid of the page before. Needs a key."""
        return list_tasks(database, caller, limit=query.limit, after=query.after)


def _add_tasks(router: APIRouter, services: Services) -> None:
    database, store, logs = services.database, services.store, services.logs

    async def wait_until_ended(request: Request, uid: str, caller: Caller, seconds: float) -> None:
        """Return when the task has ended, the time is over or the client has gone. Raises `TaskNotFound`."""
        ends_at = asyncio.get_running_loop().time() + seconds
        async with services.watch.watch(uid) as watcher:
            while not await run_in_threadpool(is_ended, database, uid, caller):
                left = ends_at - asyncio.get_running_loop().time()
                if left <= 0 or await request.is_disconnected():
                    return
                await watcher.changed(left)

    @router.get("/{uid}", response_class=Response, responses={**ZIP_ANSWER, **document_errors(*_POLL_ERRORS)})
    async def poll(request: Request, uid: str, query: Annotated[TaskPoll, Query()], caller: GivenCaller) -> Response:
        """The output zip, or one of the codes 551 to 554. `wait` holds the answer until the task ends."""
        if query.wait:
            await wait_until_ended(request, uid, caller, query.wait)
        return ZipResponse(store, await run_in_threadpool(find_output, database, store, logs, uid, caller))

    @router.get("/{uid}/status", responses=document_errors(TaskRecordNotFound))
    async def status(request: Request, uid: str, query: Annotated[TaskPoll, Query()], caller: GivenCaller) -> TaskView:
        """The whole task as JSON with a plain 200, or 404: for tools that trip over 55x."""
        try:
            if query.wait:
                await wait_until_ended(request, uid, caller, query.wait)
            return await run_in_threadpool(show_task, database, logs, uid, caller)
        except TaskNotFound as error:
            raise TaskRecordNotFound from error

    @router.get("/{uid}/output", response_class=Response, responses={**ZIP_ANSWER, **document_errors(*_POLL_ERRORS)})
    @router.head("/{uid}/output", include_in_schema=False)
    @router.head("/{uid}", include_in_schema=False)
    def output(request: Request, uid: str, caller: GivenCaller) -> Response:
        """The output zip with `ETag` (its sha256), `Content-Length` and one `Range`."""
        return ZipResponse(store, find_output(database, store, logs, uid, caller), request.headers.get("if-none-match"))

    @router.get("/{uid}/logs", response_class=Response, responses=document_errors(TaskNotFound))
    async def show_log(uid: str, query: Annotated[LogQuery, Query()], caller: GivenCaller) -> Response:
        """What the container wrote to stdout and stderr, of the newest attempt."""
        fence, _ = await run_in_threadpool(find_log, database, uid, caller)
        chunks = follow_log(services, uid, caller) if query.follow else read_log(logs, uid, fence)
        return StreamingResponse(chunks, media_type="text/plain; charset=utf-8")

    @router.post("/{uid}/cancel", responses=document_errors(TaskNotFound))
    def cancel(uid: str, caller: GivenCaller) -> TaskView:
        """Cancel the task and keep its record. A task that has ended stays as it is."""
        cancel_task(database, uid, caller)
        services.watch.notify(uid)
        return show_task(database, logs, uid, caller)

    @router.delete("/{uid}", status_code=204, responses=document_errors(TaskNotFound))
    def delete(uid: str, caller: GivenCaller) -> None:
        """Cancel what runs and delete what is stored. Deleting again is fine."""
        delete_task(database, uid, caller)
        services.watch.notify(uid)
        services.sweep()
