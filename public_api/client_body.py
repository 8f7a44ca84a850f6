"""The body that a door's client sends, as it is relayed, and whether the client is still there."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpcore
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

SENDING = "http11.send_request_headers.started"
"""What httpcore's trace calls it when it has a connection for a request."""
_LOOK_S = 1
"""How often an upload whose client stalls checks for an early answer."""


class ClientBody:
    """The body that the client sends, and whether the client is still connected.

    `receive` has one reader at a time: `read` until the body ended, then `wait_until_gone`.
    """

    def __init__(self, receive: Receive, *, is_relayed: bool) -> None:
        self._receive = receive
        self._was_read = asyncio.Event()
        if not is_relayed:
            self._was_read.set()
        self._upstream: httpcore.AsyncNetworkStream | None = None
        self.is_sent = asyncio.Event()
        """Set once there is a connection for the request, a new one or a kept one."""

    async def note_connection(self, event: str, details: dict[str, Any]) -> None:
        """Called by httpcore's trace: keeps the connection that the request is sent on."""
        if event == "connection.connect_tcp.complete":
            self._upstream = details["return_value"]
        elif event == SENDING:
            self.is_sent.set()

    async def read(self) -> AsyncIterator[bytes]:
        """The pieces of the body, until it ends or the private API answers. Raises `ClientDisconnect`."""
        try:
            more = True
            while more:
                message = await self._next_message()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                more = message.get("more_body", False)
                if not more:
                    # Before the last piece: from here on the watcher notices when the client goes.
                    self._was_read.set()
                if piece := message.get("body", b""):
                    yield piece
        finally:
            self._was_read.set()

    async def wait_until_gone(self) -> None:
        """Return when the client is gone. What it still sends after an early answer is dropped."""
        await self._was_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next_message(self) -> Message:
        while True:
            if self._has_answer():
                # The only exception after which httpcore stops sending and reads the answer.
                raise httpcore.WriteError("the private API answered before the body ended")
            try:
                async with asyncio.timeout(_LOOK_S):
                    return await self._receive()
            except TimeoutError:
                continue

    def _has_answer(self) -> bool:
        # Nobody reads the socket while a request is being sent, so bytes in it are an answer, or its end.
        return self._upstream is not None and bool(self._upstream.get_extra_info("is_readable"))
