"""Runs code that blocks on the network inside an event loop, without a thread and without blocking the loop.

The code runs in a greenlet. Where it would block it switches back to the coroutine that called it, which awaits in its
place: everything that waits for the network is a real await, and a cancellation arrives where the code waits. The only
module that imports greenlet. What works on local files still blocks, as file access does in any coroutine.
"""

import contextvars
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import anyio
import greenlet
import httpx

from inference_client.errors import Interrupted

P = ParamSpec("P")
T = TypeVar("T")
_END = object()


async def run_blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` returns or raises. It may call `await_`."""
    call: Any = greenlet.greenlet(function, greenlet.getcurrent())
    call.gr_context = contextvars.copy_context()
    call.may_wait = True
    answer = call.switch(*args, **kwargs)
    while not call.dead:
        try:
            value = await answer
        except BaseException as error:
            # A coroutine that is closed, as by an event loop that ends, cannot await any more.
            call.may_wait = not isinstance(error, GeneratorExit)
            answer = call.throw(*sys.exc_info())
        else:
            answer = call.switch(value)
    result: T = answer
    return result


async def iterate_blocking(iterator: Iterator[T]) -> AsyncIterator[T]:
    """The items of an iterator whose steps may call `await_`. One that is a generator is closed at the end."""
    try:
        while (item := await run_blocking(next, iterator, _END)) is not _END:
            yield item  # type: ignore[misc]
    finally:
        if (close := getattr(iterator, "close", None)) is not None:
            await run_blocking(close)


def await_(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Await what `function` returns, from code inside `run_blocking`."""
    call: Any = greenlet.getcurrent()
    may_wait = getattr(call, "may_wait", None)
    if may_wait is None:
        raise RuntimeError(
            "this waits for the server: await the method of the AsyncInferenceClient or AsyncBatch for it"
        )
    if not may_wait:
        raise Interrupted("the event loop has ended")
    value: T = call.parent.switch(function(*args, **kwargs))
    return value


def sleep(seconds: float) -> None:
    """Pause, inside `run_blocking`."""
    await_(anyio.sleep, seconds)


class AwaitingTransport(httpx.BaseTransport):
    """Sends the requests of a blocking HTTP client through one that awaits."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it; the answer's body is streamed."""
        extensions = dict(request.extensions)
        if (trace := extensions.get("trace")) is not None:
            extensions["trace"] = _awaitable_trace(trace)
        # The client in between shall not change what the blocking one has decided.
        sent = httpx.Request(
            request.method,
            request.url,
            headers=request.headers,
            stream=_SentBody(request.stream),
            extensions=extensions,
        )
        answer = await_(self._client.send, sent, stream=True, auth=None, follow_redirects=False)
        return httpx.Response(
            answer.status_code,
            headers=answer.headers,
            stream=_ReceivedBody(answer),
            extensions={name: value for name, value in answer.extensions.items() if name != "network_stream"},
        )


def _awaitable_trace(trace: Callable[[str, Any], None]) -> Callable[[str, Any], Awaitable[None]]:
    async def note(event: str, info: Any) -> None:
        trace(event, info)

    return note


class _SentBody(httpx.AsyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._stream:
            yield chunk


class _ReceivedBody(httpx.SyncByteStream):
    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        chunks = self._answer.aiter_raw()
        while (chunk := await_(anext, chunks, b"")) != b"":
            yield chunk

    def close(self) -> None:
        await_(self._answer.aclose)
