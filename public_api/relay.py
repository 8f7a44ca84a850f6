"""Relays one request to the private API: where the client's connection meets the upstream one.

Bodies pass piece by piece in both directions. Nothing is parsed or stored, each side is read only as fast as the other
accepts, and each side learns when the other goes away.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import httpcore
import httpx
from anyio import CancelScope
from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from contract.access import CALLER_ADDRESS_HEADER, CALLER_KEY_HEADER, DOOR_POLICY_HEADER, DoorPolicy, read_key
from contract.errors import ServiceUnavailable
from contract.events import LAST_EVENT_ID_HEADER
from contract.schemas import Query
from kit.http_errors import REQUEST_ID_HEADER, loggable_path
from kit.http_server import stopping_of
from kit.logging import request_id
from public_api.addresses import client_address
from public_api.connections import Connections
from public_api.pulse import Pulse

logger = logging.getLogger(__name__)

BODY_HEADERS = frozenset({b"content-type", b"content-length"})
REQUEST_HEADERS = frozenset(
    {b"accept", b"idempotency-key", b"range", b"if-range", b"if-none-match", LAST_EVENT_ID_HEADER.encode()}
)
ANSWER_HEADERS = frozenset(
    {
        b"accept-ranges",
        b"cache-control",
        b"content-disposition",
        b"content-length",
        b"content-range",
        b"content-security-policy",
        b"content-type",
        b"etag",
        b"last-modified",
        b"repr-digest",
        b"retry-after",
        b"www-authenticate",
        b"x-accel-buffering",
        b"x-content-type-options",
        b"x-task-warnings",
    }
)
_CONNECT_S = 10
"""More than the 3 s in which a kernel repeats a lost packet twice, and than the loop of a busy machine lags."""
PATIENCE_S = 90
"""How long an answer may pause: more than the longest long poll."""
UPLOAD_PATIENCE_S = 900
"""How long the answer to an upload may take: the zip is synced to disk and checked first."""
_LOOK_S = 1
"""How often an upload whose client stalls checks for an early answer."""


class Relay:
    """Relays requests to the private API. It belongs to one event loop."""

    def __init__(self, private_url: str, service_token: str, policy: DoorPolicy, *, behind_proxy: bool = False) -> None:
        self._behind_proxy = behind_proxy

        def connect(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
            headers = {
                "Authorization": f"Bearer {service_token}",
                "Accept-Encoding": "identity",
                DOOR_POLICY_HEADER: policy.to_header(),
            }
            return httpx.AsyncClient(base_url=private_url, headers=headers, transport=transport, trust_env=False)

        self._calls = connect(Connections())
        # A new connection for every body: a body cannot be sent again after a kept connection turns out to be closed,
        # and httpcore's trace reports only new connections.
        self._uploads = connect(Connections(most_idle=0))
        self._pulse = Pulse(self._calls)

    def forward(
        self,
        request: Request,
        path: str,
        *,
        query: Query | None = None,
        with_body: bool = False,
        patience_s: float | None = PATIENCE_S,
        is_endless: bool = False,
    ) -> Response:
        """The private API's answer at `path`, as the answer to `request`. The call is made when the answer is sent.

        `path` must be built from checked parts. Only the parameters of `query` that the caller gave are sent.
        `patience_s` limits the pauses of the answer; one that `is_endless` ends when this server stops. Raises
        `ServiceUnavailable` while sending.
        """
        passed = REQUEST_HEADERS | BODY_HEADERS if with_body else REQUEST_HEADERS
        # As bytes: httpx would refuse text that is not ASCII.
        headers = [(name, value) for name, value in request.headers.raw if name in passed]
        headers.append((REQUEST_ID_HEADER.encode(), (request_id.get() or "").encode()))
        if (key := read_key(request.headers)) is not None:
            # Starlette decodes headers as Latin-1: this gives back the bytes that came.
            headers.append((CALLER_KEY_HEADER.encode(), key.encode("latin-1")))
        if address := client_address(request, behind_proxy=self._behind_proxy):
            headers.append((CALLER_ADDRESS_HEADER.encode(), address.encode("latin-1")))
        parameters = query.model_dump(mode="json", exclude_unset=True) if query else {}
        body = _ClientBody(request.receive, is_relayed=with_body)
        client = self._uploads if with_body else self._calls
        outgoing = client.build_request(
            request.method,
            path,
            params=parameters or None,
            headers=headers,
            content=body.read() if with_body else None,
            timeout=httpx.Timeout(UPLOAD_PATIENCE_S, connect=_CONNECT_S, read=patience_s),
            extensions={"trace": body.note_connection},
        )
        # An upload is waited for: its zip is synced and checked, which may keep a small machine busy.
        pulse = None if with_body else self._pulse
        call = f"{request.method} {loggable_path(request)}"
        return _Exchange(client, outgoing, body, call, is_endless=is_endless, pulse=pulse)

    async def close(self) -> None:
        await self._calls.aclose()
        await self._uploads.aclose()


class _Exchange(Response):
    """One relayed request and its answer. It ends at once when the client goes away."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        outgoing: httpx.Request,
        body: "_ClientBody",
        call: str,
        *,
        is_endless: bool,
        pulse: Pulse | None,
    ) -> None:
        """`call` names the request in the log."""
        super().__init__()
        self._call = call
        self._is_endless = is_endless
        self._pulse = pulse
        self._has_begun = False
        self._client = client
        self._outgoing = outgoing
        self._body = body

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Make the call, and pass its answer on."""
        stopping = stopping_of(scope)
        # A cancelled call closes its connection, which tells the private API that nobody waits. It is cancelled by a
        # scope and never by its task: httpcore closes connections in shielded scopes, and what cancels the task breaks
        # those, which leaves connections open that nobody knows of.
        with CancelScope() as relaying:
            ends = [asyncio.create_task(_cancel_after(self._body.wait_until_gone(), relaying))]
            if self._is_endless:
                ends.append(asyncio.create_task(_cancel_after(stopping.wait(), relaying)))
            try:
                await self._relay(send)
            finally:
                for each in ends:
                    each.cancel()
        await asyncio.wait(ends)
        if relaying.cancelled_caught and self._is_endless and stopping.is_set() and self._has_begun:
            await send({"type": "http.response.body", "body": b""})

    async def _relay(self, send: Send) -> None:
        try:
            answer = await self._send()
        except httpx.TransportError as error:
            raise _unavailable(self._call, error) from error
        except ClientDisconnect:
            return
        try:
            headers = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() in ANSWER_HEADERS]
            self._has_begun = True
            await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
            async for piece in answer.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except httpx.TransportError as error:
            # Without a last piece the server cuts the connection, so the client sees that the answer is incomplete.
            logger.warning("%s: the answer was interrupted: %r", self._call, error)
        finally:
            await answer.aclose()

    async def _send(self) -> httpx.Response:
        """The answer, as soon as its headers are here. Raises `httpx.ReadTimeout` once the private API is silent."""
        if self._pulse is None:
            return await self._client.send(self._outgoing, stream=True)
        # A scope, as above: what cancels the task would leave connections open.
        with CancelScope() as sending, self._pulse.watched(self._body.is_sent, sending.cancel):
            answer = await self._client.send(self._outgoing, stream=True)
            self._pulse.feel()
            return answer
        raise httpx.ReadTimeout("it answers nothing at all")


async def _cancel_after(end: Awaitable[object], scope: CancelScope) -> None:
    await end
    scope.cancel()


class _ClientBody:
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
        elif event == "http11.send_request_headers.started":
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


def _unavailable(call: str, error: httpx.TransportError) -> ServiceUnavailable:
    logger.warning("%s: the private API: %r", call, error)
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return ServiceUnavailable("The private API cannot be reached right now. Nothing was lost; repeat the request.")
    return ServiceUnavailable(
        "The private API did not answer. Repeat the request; a submission with the same Idempotency-Key runs only once."
    )
