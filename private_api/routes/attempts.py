"""`/internal/`: the calls of consumers about tasks. No door relays them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from contract.claims import ClaimRequest
from contract.errors import Conflict, PermissionDenied, StaleFence, StorageFull, TaskNotFound
from contract.heartbeats import Heartbeat, HeartbeatReply
from contract.registration import Registered
from contract.schemas import (
    UID_PATTERN,
    ArchiveView,
    Assignment,
    Commit,
    ConsumerRegistration,
    Failure,
    Release,
    Settled,
)
from kit.http_errors import document_errors
from kit.http_server import stopping_of
from kit.openapi import ZIP_ANSWER, ZIP_BODY
from private_api.lanes import Lane
from private_api.placement.ahead import begin_task
from private_api.placement.consumers import register_consumer
from private_api.placement.holders import Holders
from private_api.placement.task_claim import claim_task
from private_api.routes.access import GivenCaller
from private_api.routes.answers import answer_consumer
from private_api.routes.json_bodies import JsonRouter
from private_api.services import Services
from private_api.task_logs import MAX_LINE_BYTES
from private_api.tasks.attempts import attempt_archive, beat_task, is_to_end, show_assignment
from private_api.tasks.settle import check_holder, commit_output, fail_task, keep_output, release_task
from private_api.uploads import receive_zip

Uid = Annotated[str, Path(pattern=UID_PATTERN)]
Fence = Annotated[int, Path(ge=1)]

_MAX_LOG_PIECE_BYTES = 1024**2
_LONGEST_WAIT_S = 60


def attempt_routes(services: Services) -> APIRouter:
    router = JsonRouter(prefix="/internal", tags=["consumers"], responses=document_errors(StaleFence, TaskNotFound))
    known = Holders()
    _add_claims(router, services, known)
    _add_attempts(router, services, known)
    return router


def _add_claims(router: APIRouter, services: Services, known: Holders) -> None:
    holders = services.holders

    @router.post("/consumers", name="register_consumer", responses=document_errors(Conflict))
    async def register(request: ConsumerRegistration, caller: GivenCaller) -> Registered:
        """Register a consumer that starts; refused if another live one has its GPU."""
        return await holders.run(register_consumer, request, owner=caller.owner)

    @router.post("/claims", name="claim_task")
    async def claim(request: ClaimRequest, caller: GivenCaller) -> Assignment | None:
        """A task for this consumer under a new fence, or null if there is none."""
        assignment = await holders.run(claim_task, request, services.sizes, services.yield_after, owner=caller.owner)
        if assignment is not None:
            known.note_claim(assignment.uid, assignment.fence, owner=caller.owner, consumer=request.consumer)
            services.watch.notify(assignment.uid)
        return assignment


def _consumer_finder(holders: Lane, known: Holders) -> Callable[..., AsyncIterator[str | None]]:
    """The dependency of every call of an attempt: only the consumer that claimed it may call."""

    async def find_consumer(uid: Uid, fence: Fence, caller: GivenCaller) -> AsyncIterator[str | None]:
        consumer = known.find(uid, fence, owner=caller.owner)
        if consumer is None:
            consumer = await holders.run(known.check, uid, fence, owner=caller.owner)
        try:
            yield consumer
        except StaleFence:
            # It may be over because its consumer went to another owner, which is then what to say.
            await holders.run(known.recheck, uid, fence, owner=caller.owner)
            raise

    return find_consumer


def _add_attempts(parent: APIRouter, services: Services, known: Holders) -> None:
    database, store, holders = services.database, services.store, services.holders
    find_consumer = _consumer_finder(holders, known)

    # Before every route of an attempt: only the consumer that claimed it may call.
    router = JsonRouter(prefix="/tasks/{uid}/attempts/{fence}", dependencies=[Depends(find_consumer)])

    @router.get("")
    async def show_attempt(uid: Uid, fence: Fence) -> Assignment:
        """The assignment of an attempt that still holds its task."""
        return await holders.run(show_assignment, uid, fence, services.sizes)

    @router.post("/heartbeat")
    async def beat_attempt(
        uid: Uid,
        fence: Fence,
        heartbeat: Heartbeat,
        caller: GivenCaller,
        consumer: Annotated[str | None, Depends(find_consumer)],
    ) -> HeartbeatReply:
        """Extend the lease of the attempt."""
        if caller.owner is not None and consumer not in (None, heartbeat.consumer):
            raise PermissionDenied(f"this attempt is one of {consumer}, not of {heartbeat.consumer}")
        reply = await holders.run(beat_task, uid, fence, heartbeat)
        services.watch.notify(uid)
        return reply

    @router.get("/input", response_class=Response, responses=dict(ZIP_ANSWER))
    def fetch_attempt_input(request: Request, uid: Uid, fence: Fence) -> Response:
        """The task's zip."""
        return answer_consumer(request, services, attempt_archive(database, uid, fence, of_model=False))

    @router.get("/model", response_class=Response, responses=dict(ZIP_ANSWER))
    def fetch_attempt_model(request: Request, uid: Uid, fence: Fence) -> Response:
        """The model's zip."""
        return answer_consumer(request, services, attempt_archive(database, uid, fence, of_model=True))

    @router.put("/output", openapi_extra=dict(ZIP_BODY), responses=document_errors(StorageFull))
    async def upload_output(request: Request, uid: Uid, fence: Fence) -> ArchiveView:
        """Store the output; it becomes the task's result by the commit that follows."""
        await run_in_threadpool(check_holder, database, uid, fence)
        limit = services.sizes.max_output_bytes
        async with receive_zip(request, store, max_bytes=limit) as upload:
            stored = await run_in_threadpool(keep_output, store, upload, uid, fence)
        return ArchiveView(sha256=stored.sha256, size_bytes=stored.size_bytes)

    @router.post("/commit")
    async def commit_attempt(uid: Uid, fence: Fence, body: Commit) -> Settled:
        """The uploaded output is the result."""
        return settled(uid, await holders.run(commit_output, store, uid, fence, body))

    @router.post("/failure")
    async def fail_attempt(uid: Uid, fence: Fence, body: Failure) -> Settled:
        """End the task: the model failed."""
        return settled(uid, await holders.run(fail_task, uid, fence, body))

    @router.post("/release")
    async def release_attempt(uid: Uid, fence: Fence, body: Release) -> Settled:
        """The holder cannot run the task; somebody else may."""
        answer = settled(uid, await holders.run(release_task, uid, fence, body))
        services.ring()
        return answer

    def settled(uid: str, answer: Settled) -> Settled:
        services.watch.notify(uid)
        return answer

    @router.post("/log", responses=document_errors(StorageFull))
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

    @router.post("/log/line")
    async def show_log_line(request: Request, uid: Uid, fence: Fence) -> None:
        """Show the line that is being written, at most 1 KiB, below the log until that goes on."""
        line = b""
        async for chunk in request.stream():
            line = (line + chunk)[:MAX_LINE_BYTES]
        await run_in_threadpool(check_holder, database, uid, fence)
        await run_in_threadpool(services.logs.show_line, uid, fence, line)
        services.watch.notify(uid)

    _add_begin(router, services)
    _add_cancel(router, services)
    parent.include_router(router)


def _add_begin(router: APIRouter, services: Services) -> None:
    @router.post("/begin")
    async def begin_attempt(uid: Uid, fence: Fence) -> Settled:
        """May an attempt that was prepared ahead begin? Only if its task is still `leased`."""
        answer = await services.holders.run(begin_task, uid, fence)
        services.watch.notify(uid)
        services.ring()
        return answer


def _add_cancel(router: APIRouter, services: Services) -> None:
    @router.get("/cancel")
    async def wait_for_cancel(
        request: Request,
        uid: Uid,
        fence: Fence,
        wait: Annotated[float, Query(ge=0, le=_LONGEST_WAIT_S, description="Hold the answer until then.")] = 0,
    ) -> bool:
        """Whether the task is to end. `wait` holds the answer until its owner asks for that, or the attempt is over."""
        clock, stopping = asyncio.get_running_loop().time, stopping_of(request.scope)
        ends_at = clock() + wait
        async with services.watch.watch(uid) as watcher:
            while not (asked := await services.holders.run(is_to_end, uid, fence)):
                left = ends_at - clock()
                if left <= 0 or stopping.is_set() or await request.is_disconnected():
                    break
                await watcher.changed(left, stopping)
        return asked
