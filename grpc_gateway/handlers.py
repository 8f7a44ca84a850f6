"""The calls that the gateway answers itself, by their full path."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from grpc_gateway.admission import Admission, CallClass
from grpc_gateway.calls import Call
from grpc_gateway.keys import Access

UnaryHandler = Callable[[Call, bytes], Awaitable[bytes]]
"""Takes the request and returns the response; raises `StatusError` for any status but OK."""
StreamHandler = Callable[[Call], Awaitable[None]]
"""Reads and writes through the call; returns for OK and raises `StatusError` for any other status."""


@dataclass(frozen=True, slots=True)
class LocalMethod:
    """A method that the gateway answers itself."""

    handler: Callable[..., Awaitable[bytes | None]]
    """A `UnaryHandler` or a `StreamHandler`."""
    is_unary: bool
    access: Access


class LocalHandlers:
    """The paths that the gateway answers itself. Filled while a gateway is put together, then only read."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._methods: dict[str, LocalMethod] = {}

    def add_unary(self, path: str, handler: UnaryHandler, access: Access = Access.KEY) -> None:
        """Answer `/package.Service/Method` with `handler`."""
        self._methods[path] = LocalMethod(handler, True, access)

    def add_stream(self, path: str, handler: StreamHandler, access: Access = Access.KEY) -> None:
        """Answer `/package.Service/Method` with `handler`, whichever side streams; it counts as a local stream."""

        async def count_and_answer(call: Call) -> None:
            needs_key = access is not Access.OPEN
            self._admission.enter(CallClass.LOCAL, call.holder, needs_key=needs_key)
            try:
                await handler(call)
            finally:
                self._admission.leave(CallClass.LOCAL, call.holder, needs_key=needs_key)

        self._methods[path] = LocalMethod(count_and_answer, False, access)

    def find(self, path: str) -> LocalMethod | None:
        """What answers `path`; None if the call goes to a deployment."""
        return self._methods.get(path)
