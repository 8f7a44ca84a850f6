"""`/internal/`: what consumers do. Never relayed by a door."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from contract.errors import Conflict, PermissionDenied, StaleFence, TaskNotFound
from contract.http_errors import ZIP_ANSWER, ZIP_BODY, document_errors
from contract.schemas import (
    UID_PATTERN,
    ArchiveView,
    Assignment,
    ClaimRequest,
    Commit,
    ConsumerRegistration,
    Failure,
    Heartbeat,
    HeartbeatReply,
    Release,
    Settled,
)
from private_api.routes.access import GivenCaller
from private_api.routes.answers import ZipResponse
from private_api.services import Services
from private_api.tasks.claim import attempt_archive, beat_task, claim_task, show_assignment
from private_api.tasks.consumers import check_attempt, register_consumer
from private_api.tasks.read import Output
from private_api.tasks.settle import check_holder, commit_output, fail_task, keep_output, release_task
from private_api.uploads import receive_zip

Uid = Annotated[str, Path(pattern=UID_PATTERN)]
Fence = Annotated[int, Path(ge=1)]

_MAX_LOG_PIECE_BYTES = 1024**2


def attempt_routes(services: Services) -> APIRouter:
    """The routes over `services`."""
    router = APIRouter(prefix="/internal", tags=["consumers"], responses=document_errors(StaleFence, TaskNotFound))
    _add_claims(router, services)
    _add_attempts(router, services)
    return router


def _add_claims(router: APIRouter, services: Services) -> None:
    database = services.database

    @router.post("/consumers", responses=document_errors(Conflict))
    def register(request: ConsumerRegistration, caller: GivenCaller) -> None:
        """A consumer starts; refused where another one that lives has its GPU."""
        register_consumer(database, request, owner=caller.owner)

    @router.post("/claims")
    def claim(request: ClaimRequest, caller: GivenCaller) -> Assignment | None:
        """A task for this consumer under a new fence, or null where there is none."""
        assignment = claim_task(database, request, services.sizes, owner=caller.owner)
        if assignment is not None:
            services.watch.notify(assignment.uid)
        return assignment


def _add_attempts(parent: APIRouter, services: Services) -> None:
    database, store = services.database, services.store

    def find_consumer(uid: Uid, fence: Fence, caller: GivenCaller) -> str | None:
        return check_attempt(database, uid, fence, owner=caller.owner)

    # In front of every route of an attempt: only who claimed it may call it.
    router = APIRouter(prefix="/tasks/{uid}/attempts/{fence}", dependencies=[Depends(find_consumer)])

    @router.get("")
    def show(uid: Uid, fence: Fence) -> Assignment:
        """The assignment of an attempt that still holds its task."""
        return show_assignment(database, uid, fence, services.sizes)

    @router.post("/heartbeat")
    def beat(
        uid: Uid,
        fence: Fence,
        heartbeat: Heartbeat,
        caller: GivenCaller,
        consumer: Annotated[str | None, Depends(find_consumer)],
    ) -> HeartbeatReply:
        """Keep the lease."""
        if caller.owner is not None and consumer not in (None, heartbeat.consumer):
            raise PermissionDenied(f"this attempt is one of {consumer}, not of {heartbeat.consumer}")
        reply = beat_task(database, uid, fence, heartbeat)
        services.watch.notify(uid)
        return reply

    @router.get("/input", response_class=Response, responses=dict(ZIP_ANSWER))
    def fetch_input(uid: Uid, fence: Fence) -> Response:
        """The task's zip."""
        return send(*attempt_archive(database, uid, fence, of_model=False))

    @router.get("/model", response_class=Response, responses=dict(ZIP_ANSWER))
    def fetch_model(uid: Uid, fence: Fence) -> Response:
        """The model's zip."""
        return send(*attempt_archive(database, uid, fence, of_model=True))

    def send(key: str, archive: ArchiveView) -> Response:
        return ZipResponse(store, Output(key, archive.sha256, archive.size_bytes))

    @router.put("/output", openapi_extra=dict(ZIP_BODY))
    async def upload_output(request: Request, uid: Uid, fence: Fence) -> ArchiveView:
        """Store the output; it becomes the task's result by the commit that follows."""
        await run_in_threadpool(check_holder, database, uid, fence)
        limit = services.sizes.max_output_bytes
        async with receive_zip(request, store, max_bytes=limit) as upload:
            stored = await run_in_threadpool(keep_output, store, upload, uid, fence)
        return ArchiveView(sha256=stored.sha256, size_bytes=stored.size_bytes)

    @router.post("/commit")
    def commit(uid: Uid, fence: Fence, body: Commit) -> Settled:
        """The uploaded output is the result."""
        return settled(uid, commit_output(database, store, uid, fence, body))

    @router.post("/failure")
    def fail(uid: Uid, fence: Fence, body: Failure) -> Settled:
        """The model failed."""
        return settled(uid, fail_task(database, uid, fence, body))

    @router.post("/release")
    def release(uid: Uid, fence: Fence, body: Release) -> Settled:
        """The holder cannot run the task; somebody else may."""
        answer = settled(uid, release_task(database, uid, fence, body))
        services.ring()
        return answer

    def settled(uid: str, answer: Settled) -> Settled:
        services.watch.notify(uid)
        return answer

    @router.post("/log")
    async def append_log(request: Request, uid: Uid, fence: Fence, offset: Annotated[int, Query(ge=0)]) -> int:
        """Add a piece of at most 1 MiB to the log at `offset`; answers the offset after it."""
        piece = b""
        async for chunk in request.stream():
            piece += chunk
            if len(piece) > _MAX_LOG_PIECE_BYTES:
                break
        await run_in_threadpool(check_holder, database, uid, fence)
        size = await run_in_threadpool(services.logs.append, uid, fence, offset, piece[:_MAX_LOG_PIECE_BYTES])
        services.watch.notify(uid)
        return size

    parent.include_router(router)
