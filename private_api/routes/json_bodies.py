"""Routes whose JSON bodies are bounded: the framework reads a body whole, before it asks for a key."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message, Receive

from contract.errors import TooLarge
from kit.http_errors import document_errors
from kit.sizes import say_bytes

MAX_JSON_BYTES = 1024**2


class JsonRouter(APIRouter):
    """Its routes answer `TooLarge` to a JSON body of more than `MAX_JSON_BYTES`, without reading the rest."""

    def __init__(self, **options: Any) -> None:
        super().__init__(route_class=_BoundedRoute, **options)


class _BoundedRoute(APIRoute):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.body_field is not None:
            self.responses = {**document_errors(TooLarge), **self.responses}

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            # It reads a body piece by piece, if it takes one.
            return handle

        async def handle_bounded(request: Request) -> Response:
            body = await _read(request)
            return await handle(Request(request.scope, _once_more(body, request.receive)))

        return handle_bounded


async def _read(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    _check(int(declared) if declared.isdecimal() else 0)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        _check(len(body))
    return bytes(body)


def _check(size: int) -> None:
    if size > MAX_JSON_BYTES:
        raise TooLarge(f"a JSON body may have at most {say_bytes(MAX_JSON_BYTES)}")


def _once_more(body: bytes, receive: Receive) -> Receive:
    """What the framework reads: the body, and then what else is received."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_body() -> Message:
        return messages.pop() if messages else await receive()

    return receive_body
