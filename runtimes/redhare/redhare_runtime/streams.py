"""`redhare.Inference`: a token opens a stream, then every data message is answered in order."""

import asyncio
import uuid
from dataclasses import dataclass

import grpc
import stream_pb2 as messages
import stream_pb2_grpc

from redhare_runtime.batches import Inbox, KernelFailed, Request
from redhare_runtime.tokens import TokenRefused, peek_subject, verify_token

WINDOW = 64
"""Requests of one stream that may await their answers; while there are as many, the stream is not read."""


@dataclass(frozen=True)
class StreamAccess:
    """Decides which tokens open a stream."""

    key: bytes | None
    """The key that tokens are signed with; with None any token opens a stream."""
    deployment: str

    def check(self, token: str) -> "StreamStatus | None":
        """Why this token does not open a stream, or None if it does."""
        if self.key is None:
            return None
        try:
            if peek_subject(token) != self.deployment:
                return StreamStatus(
                    grpc.StatusCode.PERMISSION_DENIED, "the token is for another model; authenticate for this one"
                )
            verify_token(self.key, token)
        except TokenRefused as refused:
            return StreamStatus(grpc.StatusCode.UNAUTHENTICATED, str(refused))
        return None


@dataclass(frozen=True)
class StreamStatus:
    """The status with which a stream ends because of its token."""

    code: grpc.StatusCode
    details: str


class Inference(stream_pb2_grpc.InferenceServicer):
    """The streams of this replica."""

    def __init__(self, inbox: Inbox, access: StreamAccess) -> None:
        self._inbox = inbox
        self._access = access

    async def auth(self, request, context):
        """Refuses every call: tokens are issued by the gateway."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "authenticate at the gateway, not at a replica")

    async def stream_infer(self, request_iterator, context):
        """Relay requests to the kernel and its answers back."""
        session = _request_id(context)
        context.set_trailing_metadata((("request_id", session),))
        first = await context.read()
        if first is grpc.aio.EOF or first.WhichOneof("request_oneof") != "token":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the first message must carry the token from auth")
        if refusal := self._access.check(first.token):
            await context.abort(refusal.code, refusal.details)
        waiting: asyncio.Queue[Request | StreamStatus | None] = asyncio.Queue(WINDOW)
        reader = asyncio.create_task(self._read(context, waiting, session))
        try:
            await _answer(context, waiting)
        finally:
            reader.cancel()
            while not waiting.empty():
                if isinstance(left := waiting.get_nowait(), Request):
                    left.gone = True

    async def _read(self, context, waiting: "asyncio.Queue[Request | StreamStatus | None]", session: str) -> None:
        """Queue what arrives; the last item is None, or the refusal of a token."""
        while (message := await context.read()) is not grpc.aio.EOF:
            if message.WhichOneof("request_oneof") == "token":
                if refusal := self._access.check(message.token):
                    await waiting.put(refusal)
                    return
                continue
            request = Request(message.data, session)
            # Into the window first: a stream whose window is full must not fill the inbox.
            await waiting.put(request)
            self._inbox.put(request)
        await waiting.put(None)


async def _answer(context, waiting: "asyncio.Queue[Request | StreamStatus | None]") -> None:
    """Write the answers in order, each once it is there."""
    while (item := await waiting.get()) is not None:
        if isinstance(item, StreamStatus):
            await context.abort(item.code, item.details)
        try:
            data = await item.answer
        except KernelFailed as failed:
            await context.abort(grpc.StatusCode.INTERNAL, f"the kernel failed: {failed}"[:4096])
        except asyncio.CancelledError:
            item.gone = True
            raise
        await context.write(messages.Response(data=data))


def _request_id(context) -> str:
    given = {key: value for key, value in context.invocation_metadata() or () if key == "request_id"}
    return given.get("request_id") or str(uuid.uuid4())
