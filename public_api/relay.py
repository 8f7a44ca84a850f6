"""Relays one request to the private API: where the client's connection meets the upstream one.

Bodies pass piece by piece in both directions. Nothing is parsed or stored, each side is read only as fast as the other
accepts, and each side learns when the other goes away.
"""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

import httpx
from anyio import CancelScope
from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from contract.access import CALLER_ADDRESS_HEADER, CALLER_KEY_HEADER, DOOR_POLICY_HEADER, DoorPolicy, read_key
from contract.errors import ServiceUnavailable
from contract.events import LAST_EVENT_ID_HEADER
from contract.schemas import Query
from kit.http_errors import REQUEST_ID_HEADER, loggable_path
from kit.http_server import stopping_of
from kit.logging import request_id
from public_api.addresses import client_address
from public_api.client_body import SENDING, ClientBody
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
        body = ClientBody(request.receive, is_relayed=with_body)
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

    async def call(self, path: str, body: str) -> httpx.Response:
        """The whole answer to a call of the door's own, with a JSON body. Raises `ServiceUnavailable`."""
        is_sent = asyncio.Event()

        async def note_sent(event: str, _details: dict[str, Any]) -> None:
            if event == SENDING:
                is_sent.set()

        outgoing = self._calls.build_request(
            "POST",
            path,
            headers={"Content-Type": "application/json", REQUEST_ID_HEADER: request_id.get() or ""},
            content=body,
            timeout=httpx.Timeout(PATIENCE_S, connect=_CONNECT_S),
            extensions={"trace": note_sent},
        )
        try:
            answer = await _send(self._calls, outgoing, self._pulse, is_sent)
            await answer.aread()
        except httpx.TransportError as error:
            raise _unavailable(f"POST {path}", error) from error
        return answer

    async def close(self) -> None:
        await self._calls.aclose()
        await self._uploads.aclose()


class _Exchange(Response):
    """One relayed request and its answer. It ends at once when the client goes away."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        outgoing: httpx.Request,
        body: ClientBody,
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
        if self._pulse is None:
            return await self._client.send(self._outgoing, stream=True)
        return await _send(self._client, self._outgoing, self._pulse, self._body.is_sent)


async def _send(
    client: httpx.AsyncClient, outgoing: httpx.Request, pulse: Pulse, is_sent: asyncio.Event
) -> httpx.Response:
    """The answer, as soon as its headers are here. Raises `httpx.ReadTimeout` once the private API is silent."""
    # A scope: what cancels the task would leave connections open.
    with CancelScope() as sending, pulse.watched(is_sent, sending.cancel):
        answer = await client.send(outgoing, stream=True)
        pulse.feel()
        return answer
    raise httpx.ReadTimeout("it answers nothing at all")


async def _cancel_after(end: Awaitable[object], scope: CancelScope) -> None:
    await end
    scope.cancel()


def _unavailable(call: str, error: httpx.TransportError) -> ServiceUnavailable:
    logger.warning("%s: the private API: %r", call, error)
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return ServiceUnavailable("The private API cannot be reached right now. Nothing was lost; repeat the request.")
    return ServiceUnavailable(
        "The private API did not answer. Repeat the request; a submission with the same Idempotency-Key runs only once."
    )
