"""`redhare.Inference`: a token opens a stream, then every data message is answered in its order."""

import asyncio
import uuid
from dataclasses import dataclass

import grpc
import stream_pb2 as messages
import stream_pb2_grpc

from redhare_runtime.batches import Inbox, KernelFailed, Request
from redhare_runtime.tokens import TokenRefused, peek_subject, verify_token

WINDOW = 64
"""Requests of one stream that may wait for their answers; beyond it the stream is not read on."""


@dataclass(frozen=True)
class Gate:
    """Who may stream."""

    key: bytes | None
    """None: everybody, with any token."""
    deployment: str

    def check(self, token: str) -> "Refusal | None":
        """Why this token does not open a stream, or None."""
        if self.key is None:
            return None
        try:
            if peek_subject(token) != self.deployment:
                return Refusal(
                    grpc.StatusCode.PERMISSION_DENIED, "the token is for another model; authenticate for this one"
                )
            verify_token(self.key, token)
        except TokenRefused as refused:
            return Refusal(grpc.StatusCode.UNAUTHENTICATED, str(refused))
        return None


@dataclass(frozen=True)
class Refusal:
    """How a stream ends before its client wants it to."""

    code: grpc.StatusCode
    details: str


class Inference(stream_pb2_grpc.InferenceServicer):
    """The streams of this replica."""

    def __init__(self, inbox: Inbox, gate: Gate) -> None:
        self._inbox = inbox
        self._gate = gate

    async def auth(self, request, context):
        """Refuse: tokens come from the gateway."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "authenticate at the gateway, not at a replica")

    async def stream_infer(self, request_iterator, context):
        """Relay requests to the kernel and its answers back."""
        context.set_trailing_metadata((("request_id", _request_id(context)),))
        first = await context.read()
        if first is grpc.aio.EOF or first.WhichOneof("request_oneof") != "token":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the first message must carry the token from auth")
        if refusal := self._gate.check(first.token):
            await context.abort(refusal.code, refusal.details)
        waiting: asyncio.Queue[Request | Refusal | None] = asyncio.Queue(WINDOW)
        reader = asyncio.create_task(self._read(context, waiting))
        try:
            await _answer(context, waiting)
        finally:
            reader.cancel()
            while not waiting.empty():
                if isinstance(left := waiting.get_nowait(), Request):
                    left.gone = True

    async def _read(self, context, waiting: "asyncio.Queue[Request | Refusal | None]") -> None:
        """Hand on what comes. Ends with None, or with the refusal of a token."""
        while (message := await context.read()) is not grpc.aio.EOF:
            if message.WhichOneof("request_oneof") == "token":
                if refusal := self._gate.check(message.token):
                    await waiting.put(refusal)
                    return
                continue
            request = Request(message.data)
            # Into the window first: a stream that is full must not fill the inbox.
            await waiting.put(request)
            self._inbox.put(request)
        await waiting.put(None)


async def _answer(context, waiting: "asyncio.Queue[Request | Refusal | None]") -> None:
    """Write each answer once it and all before it are there."""
    while (item := await waiting.get()) is not None:
        if isinstance(item, Refusal):
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
