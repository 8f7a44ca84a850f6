"""`ModelStreamInfer`: one stream of a client, whose requests may be for models of several deployments.

Each deployment gets a stream of its own, and what they answer goes back in one. Order holds per deployment. A client
whose requests all go to one deployment has a plain relay: its status, its metadata and its trailers are the replica's.
"""

import asyncio
from collections import deque

import grpc

from contract.wire import bytes_field, peek_text, text_field
from grpc_gateway.calls import Call, Target
from grpc_gateway.handlers import LocalHandlers
from grpc_gateway.lanes import Lanes
from grpc_gateway.methods import KSERVE
from grpc_gateway.relay import BackendStream, Relay
from grpc_gateway.routing import Router
from grpc_gateway.statuses import Metadata, Refusal

MODEL_STREAM_INFER = f"{KSERVE}ModelStreamInfer"
_REQUEST_MODEL, _REQUEST_ID = (1,), (3,)
_RESPONSE_ID = (2, 3)
_MOST_UNANSWERED = 4096
"""So many ids are remembered per deployment, to say which requests a replica took with it when it died."""


class KServeStreams:
    """Answers `ModelStreamInfer`."""

    def __init__(self, router: Router, relay: Relay, lanes: Lanes) -> None:
        self._router = router
        self._relay = relay
        self._lanes = lanes

    def install(self, handlers: LocalHandlers) -> None:
        """Answer the method."""
        handlers.add_stream(MODEL_STREAM_INFER, self.serve)

    async def serve(self, call: Call) -> None:
        """Serve one stream until it is over."""
        await _Stream(call, self._router, self._relay, self._lanes).run()


class _Stream:
    """A client's stream and its branches, one per deployment."""

    def __init__(self, call: Call, router: Router, relay: Relay, lanes: Lanes) -> None:
        self._call = call
        self._router = router
        self._relay = relay
        self._lanes = lanes
        self._branches: dict[str, _Branch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_several = False
        """Whether there ever were branches to more than one deployment."""
        self._is_draining = False
        """Whether the client has ended its side: then a replica that ends its stream is right to do so."""
        self._has_answered = False
        # Two writes at once are not possible on one call.
        self._writing = asyncio.Lock()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._errors_end_stream = call.headers.get("triton_grpc_error").lower() == "true"

    async def run(self) -> None:
        """Returns for OK and raises `Refusal` for any other status."""
        feeding = asyncio.create_task(self._feed())
        try:
            await asyncio.wait({feeding, self._over}, return_when=asyncio.FIRST_COMPLETED)
            # What ended the whole stream counts for more than that its requests were read.
            await (self._over if self._over.done() else feeding)
        finally:
            if not self._over.cancel() and not self._over.cancelled():
                # Asked for, so that nobody reports it as forgotten.
                self._over.exception()
            for task in (feeding, *self._tasks):
                task.cancel()
            await asyncio.gather(feeding, *self._tasks, return_exceptions=True)

    async def _feed(self) -> None:
        """Pass requests on until the client ends its side; then wait for what is still to be answered."""
        is_first = True
        async for message in self._call.requests():
            try:
                branch = self._branch_for(self._router.find(self._call, message))
            except Refusal as refusal:
                # A restricted key that is missing closes the stream; an unknown model only answers its request.
                if is_first and refusal.code is not grpc.StatusCode.NOT_FOUND:
                    raise
                await self._tell(refusal, peek_text(message, _REQUEST_ID))
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
        refusal: Refusal | None = None
        trailers: Metadata = ()
        try:
            async with self._relay.open(self._call, target) as backend:
                branch.opened.set_result(backend)
                await self._pass_on(branch, backend)
                trailers = backend.trailers
        except Refusal as caught:
            refusal = caught
        finally:
            if not branch.opened.done():
                branch.opened.set_result(None)
        if not self._has_several:
            self._call.trailers.extend(trailers)
            self._finish(refusal)
            return
        del self._branches[target.deployment.id]
        if refusal is not None or (branch.unanswered and not self._is_draining):
            ended = Refusal(grpc.StatusCode.UNAVAILABLE, f"{target.deployment.id!r} ended its stream.")
            for request_id in list(branch.unanswered) or [""]:
                await self._tell(refusal or ended, request_id)

    async def _pass_on(self, branch: "_Branch", backend: BackendStream) -> None:
        initial = await backend.initial_metadata()
        async with self._writing:
            # Of several replicas the first to answer says it; after a message it would be too late.
            if not self._has_answered and (initial or not backend.is_over):
                self._has_answered = True
                await self._call.send_initial_metadata(initial)
        while (message := await backend.read()) is not None:
            branch.note_answer(message)
            await self._write(message)

    async def _tell(self, refusal: Refusal, request_id: str) -> None:
        """Say in a response what became of a request, or end the stream with it where the client wants that."""
        if self._errors_end_stream:
            self._finish(refusal)
            return
        response = bytes_field(2, text_field(3, request_id))
        await self._write(text_field(1, refusal.details or refusal.code.name) + response)

    async def _write(self, message: bytes) -> None:
        self._lanes.hold_response(len(message))
        try:
            async with self._writing:
                self._has_answered = True
                await self._call.write(message)
        finally:
            self._lanes.drop(len(message))

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        """End the whole stream; who comes first counts."""
        if self._over.done():
            return
        if error is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(error)


class _Branch:
    """The stream to one deployment, from the moment on that it is wanted."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[BackendStream | None] = asyncio.get_running_loop().create_future()
        """None where it was refused."""
        self.unanswered: deque[str] = deque()
        """Ids of requests that no response named yet."""

    async def send(self, message: bytes) -> None:
        """Pass a request on. Where the stream is over already, whoever reads it says so."""
        if len(self.unanswered) < _MOST_UNANSWERED:
            self.unanswered.append(peek_text(message, _REQUEST_ID))
        backend = await asyncio.shield(self.opened)
        if backend is not None:
            await backend.write(message)

    async def end(self) -> None:
        """No more requests come."""
        backend = await asyncio.shield(self.opened)
        if backend is not None:
            await backend.end()

    def note_answer(self, message: bytes) -> None:
        """A response came; a decoupled model may send several for one request."""
        if self.unanswered:
            request_id = peek_text(message, _RESPONSE_ID)
            if request_id in self.unanswered:
                self.unanswered.remove(request_id)
