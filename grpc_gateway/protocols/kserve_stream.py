"""Serves `ModelStreamInfer`: one stream of a client, whose requests may be for models of several deployments.

Each deployment gets a stream of its own, and their answers go back in one. Order holds per deployment. If all requests
go to one deployment the stream is a plain relay: status, metadata and trailers are the replica's.
"""

import asyncio
from collections import deque

import grpc

from grpc_gateway.admission import Admission
from grpc_gateway.calls import Call, Target
from grpc_gateway.generated.kserve_pb2 import ModelInferResponse, ModelStreamInferResponse
from grpc_gateway.handlers import LocalHandlers
from grpc_gateway.keys import Access
from grpc_gateway.methods import KSERVE
from grpc_gateway.relay import BackendStream, Relay
from grpc_gateway.routing import Router
from grpc_gateway.statuses import Metadata, StatusError
from kit.protobuf import peek_text

MODEL_STREAM_INFER = f"{KSERVE}ModelStreamInfer"
_REQUEST_MODEL, _REQUEST_ID = (1,), (3,)
_RESPONSE_ID = (2, 3)
_MOST_UNANSWERED = 4096
"""At most this many ids are remembered per deployment, to report the requests that a dying replica took with it."""


class KServeStreams:
    """Answers `ModelStreamInfer`."""

    def __init__(self, router: Router, relay: Relay, admission: Admission) -> None:
        self._router = router
        self._relay = relay
        self._admission = admission

    def install(self, handlers: LocalHandlers) -> None:
        """Answer `ModelStreamInfer`."""
        handlers.add_stream(MODEL_STREAM_INFER, self.serve, Access.SUBMIT)

    async def serve(self, call: Call) -> None:
        """Serve one stream until it is over."""
        await _Stream(call, self._router, self._relay, self._admission).run()


class _Stream:
    """A client's stream and its branches, one per deployment."""

    def __init__(self, call: Call, router: Router, relay: Relay, admission: Admission) -> None:
        self._call = call
        self._router = router
        self._relay = relay
        self._admission = admission
        self._branches: dict[str, _Branch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_several = False
        """Whether there have been branches to more than one deployment."""
        self._is_draining = False
        """Whether the client has ended its side: from then on a replica may end its stream."""
        self._has_answered = False
        # A call takes one write at a time.
        self._writing = asyncio.Lock()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._errors_end_stream = call.headers.get("triton_grpc_error").lower() == "true"

    async def run(self) -> None:
        """Returns for OK and raises `StatusError` for any other status."""
        forwarding = asyncio.create_task(self._forward_requests())
        try:
            await asyncio.wait({forwarding, self._over}, return_when=asyncio.FIRST_COMPLETED)
            # What ended the whole stream goes before the end of its requests.
            await (self._over if self._over.done() else forwarding)
        finally:
            if not self._over.cancel() and not self._over.cancelled():
                # Retrieved, so that asyncio does not report it as never retrieved.
                self._over.exception()
            for task in (forwarding, *self._tasks):
                task.cancel()
            await asyncio.gather(forwarding, *self._tasks, return_exceptions=True)

    async def _forward_requests(self) -> None:
        """Pass requests on until the client ends its side; then wait for the answers that are still due."""
        is_first = True
        async for message in self._call.requests():
            try:
                branch = self._branch_for(self._router.find(self._call, message))
            except StatusError as error:
                # A missing restricted key closes the stream; an unknown model only fails its request.
                if is_first and error.code is not grpc.StatusCode.NOT_FOUND:
                    raise
                await self._tell(error, peek_text(message, _REQUEST_ID))
                continue
            finally:
                is_first = False
            await branch.send(message)
        self._is_draining = True
        for branch in list(self._branches.values()):
            await branch.end()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _branch_for(self, target: Target) -> "_Branch":
        branch = self._branches.get(target.deployment.id)
        if branch is None:
            self._has_several = self._has_several or bool(self._branches)
            branch = self._branches[target.deployment.id] = _Branch()
            task = asyncio.create_task(self._serve_branch(branch, target))
            self._tasks.add(task)
            task.add_done_callback(self._note_end)
        return branch

    async def _serve_branch(self, branch: "_Branch", target: Target) -> None:
        error: StatusError | None = None
        trailers: Metadata = ()
        try:
            async with self._relay.open(self._call, target) as backend:
                branch.opened.set_result(backend)
                await self._pass_on(branch, backend)
                trailers = backend.trailers
        except StatusError as caught:
            error = caught
        finally:
            if not branch.opened.done():
                branch.opened.set_result(None)
        if not self._has_several:
            self._call.trailers.extend(trailers)
            self._finish(error)
            return
        del self._branches[target.deployment.id]
        if error is not None or (branch.unanswered and not self._is_draining):
            ended = StatusError(grpc.StatusCode.UNAVAILABLE, f"{target.deployment.id!r} ended its stream.")
            for request_id in list(branch.unanswered) or [""]:
                await self._tell(error or ended, request_id)

    async def _pass_on(self, branch: "_Branch", backend: BackendStream) -> None:
        initial = await backend.initial_metadata()
        async with self._writing:
            # The first of several replicas to answer sends it; after a message it would be too late.
            if not self._has_answered and (initial or not backend.is_over):
                self._has_answered = True
                await self._call.send_initial_metadata(initial)
        while (message := await backend.read()) is not None:
            branch.note_answer(message)
            await self._write(message)

    async def _tell(self, error: StatusError, request_id: str) -> None:
        """Report in a response what became of a request, or end the stream with it if the client asked for that."""
        if self._errors_end_stream:
            self._finish(error)
            return
        response = ModelStreamInferResponse(
            error_message=error.details or error.code.name, infer_response=ModelInferResponse(id=request_id)
        )
        await self._write(response.SerializeToString())

    async def _write(self, message: bytes) -> None:
        self._admission.hold_response(len(message), self._call.holder)
        try:
            async with self._writing:
                self._has_answered = True
                await self._call.write(message)
        finally:
            self._admission.drop(len(message), self._call.holder)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        """End the whole stream; the first end counts."""
        if self._over.done():
            return
        if error is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(error)


class _Branch:
    """The stream to one deployment, from the first request for it."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[BackendStream | None] = asyncio.get_running_loop().create_future()
        """None if it was refused."""
        self.unanswered: deque[str] = deque()
        """Ids of requests that no response has named yet."""

    async def send(self, message: bytes) -> None:
        """Pass a request on. If the stream is already over, its reader reports that."""
        if len(self.unanswered) < _MOST_UNANSWERED:
            self.unanswered.append(peek_text(message, _REQUEST_ID))
        backend = await asyncio.shield(self.opened)
        if backend is not None:
            await backend.write(message)

    async def end(self) -> None:
        """Tell the replica that no more requests follow."""
        backend = await asyncio.shield(self.opened)
        if backend is not None:
            await backend.end()

    def note_answer(self, message: bytes) -> None:
        """Note a response; a decoupled model may send several for one request."""
        if self.unanswered:
            request_id = peek_text(message, _RESPONSE_ID)
            if request_id in self.unanswered:
                self.unanswered.remove(request_id)
