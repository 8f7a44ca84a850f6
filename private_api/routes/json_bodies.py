"""Routes whose JSON bodies are bounded, and judged by JSON's own types.

The framework reads a body whole, before it asks for a key; and it takes `false` and "0" for the number 0.
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.params import Depends as Dependency
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import Message, Receive

from contract.errors import TooLarge
from kit.http_errors import document_errors
from kit.sizes import say_bytes

MAX_JSON_BYTES = 1024**2


class JsonRouter(APIRouter):
    """Its routes answer `TooLarge` to a JSON body of more than `MAX_JSON_BYTES`, without reading the rest."""

    def __init__(self, **options: Any) -> None:
        super().__init__(route_class=_BoundedRoute, **options)

    def add_api_route(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        dependencies: Sequence[Dependency] | None = None,
        **options: Any,
    ) -> None:
        """Add a route. Its body is judged after the dependencies that say who calls."""
        # What comes from elsewhere than the body is `Annotated`.
        hints = {name: hint for name, hint in get_type_hints(endpoint, include_extras=True).items() if name != "return"}
        bodies = [hint for hint in hints.values() if isinstance(hint, type) and issubclass(hint, BaseModel)]
        strict = [Depends(_StrictBody(body)) for body in bodies]
        super().add_api_route(path, endpoint, dependencies=[*(dependencies or []), *strict], **options)


@dataclass(frozen=True)
class _StrictBody:
    """A dependency that refuses a body with a value of another type than its member has."""

    body: type[BaseModel]

    async def __call__(self, request: Request) -> None:
        try:
            self.body.model_validate_json(await request.body(), strict=True)
        except ValidationError as error:
            # To JSON, 1.0 is an integer.
            faults = [
                {**fault, "loc": ("body", *fault["loc"])}
                for fault in error.errors()
                if fault["type"] != "int_type" or not isinstance(fault["input"], float)
            ]
            if faults:
                raise RequestValidationError(faults) from error


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
