"""The calls that the gateway answers itself, by their full path."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from grpc_gateway.calls import Call
from grpc_gateway.lanes import Lane, Lanes

UnaryHandler = Callable[[Call, bytes], Awaitable[bytes]]
"""Gets the request, returns the response; raises `Refusal` for any other status."""
StreamHandler = Callable[[Call], Awaitable[None]]
"""Reads and writes through the call; returns for OK and raises `Refusal` for any other status."""


@dataclass(frozen=True, slots=True)
class LocalMethod:
    """One of them."""

    handler: Callable[..., Awaitable[bytes | None]]
    """A `UnaryHandler` or a `StreamHandler`."""
    is_unary: bool
    is_open: bool
    """Whether it is answered without a key even where keys are required."""


class LocalHandlers:
    """Which paths the gateway answers itself. Filled while a gateway is put together, then only read."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._methods: dict[str, LocalMethod] = {}

    def add_unary(self, path: str, handler: UnaryHandler, *, is_open: bool = False) -> None:
        """Answer `/package.Service/Method` with `handler`."""
        self._methods[path] = LocalMethod(handler, True, is_open)

    def add_stream(self, path: str, handler: StreamHandler, *, is_open: bool = False) -> None:
        """Answer `/package.Service/Method` with `handler`, whichever side of it streams."""

        async def count_and_answer(call: Call) -> None:
            self._lanes.enter(Lane.LOCAL)
            try:
                await handler(call)
            finally:
                self._lanes.leave(Lane.LOCAL)

        self._methods[path] = LocalMethod(count_and_answer, False, is_open)

    def find(self, path: str) -> LocalMethod | None:
        """What answers `path`, or None: then it goes to a deployment."""
        return self._methods.get(path)
