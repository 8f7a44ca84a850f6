"""One request relayed to the private API: the only place where the two connections meet.

Bodies pass piece by piece in both directions; nothing is parsed, stored or held, and each side is read only as fast as
the other takes. Each side learns when the other goes away.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpcore
import httpx
from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from contract.access import CALLER_KEY_HEADER, DOOR_POLICY_HEADER, DoorPolicy
from contract.errors import ServiceUnavailable
from contract.http_errors import REQUEST_ID_HEADER
from contract.logging import request_id
from contract.schemas import Query

logger = logging.getLogger(__name__)

BODY_HEADERS = frozenset({b"content-type", b"content-length"})
REQUEST_HEADERS = frozenset({b"idempotency-key", b"range", b"if-range", b"if-none-match"})
ANSWER_HEADERS = frozenset(
    {
        b"accept-ranges",
        b"cache-control",
        b"content-disposition",
        b"content-length",
        b"content-range",
        b"content-type",
        b"etag",
        b"last-modified",
        b"repr-digest",
        b"retry-after",
        b"www-authenticate",
    }
)
_CONNECT_S = 3
"""More than the 1 s after which a kernel repeats a lost packet, and than the loop is behind with 150 calls at once."""
PATIENCE_S = 90
"""Between two pieces of an answer: more than the longest long poll."""
UPLOAD_PATIENCE_S = 900
"""For the answer to an upload: the zip is synced to disk and checked first."""
_LOOK_S = 1
"""How often an upload whose client stalls looks for an early answer."""


class Relay:
    """The way to the private API. It belongs to one event loop."""

    def __init__(self, private_url: str, service_token: str, policy: DoorPolicy) -> None:
        def connect(limits: httpx.Limits) -> httpx.AsyncClient:
            headers = {
                "Authorization": f"Bearer {service_token}",
                "Accept-Encoding": "identity",
                DOOR_POLICY_HEADER: policy.to_header(),
            }
            return httpx.AsyncClient(base_url=private_url, headers=headers, limits=limits, trust_env=False)

        # Connections are given up before the private API, after 5 s, closes them.
        self._calls = connect(httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=2))
        # A connection of its own for every body: one cannot be sent again after a kept connection turned out closed,
        # and only of a new connection httpcore tells which it is.
        self._uploads = connect(httpx.Limits(max_connections=None, max_keepalive_connections=0))

    def forward(
        self,
        request: Request,
        path: str,
        *,
        query: Query | None = None,
        with_body: bool = False,
        patience_s: float | None = PATIENCE_S,
    ) -> Response:
        """The private API's answer at `path`, as the answer to `request`; it is asked when the answer is sent.

        `path` must be built from checked parts. Of `query` only what the caller gave is sent. `patience_s` limits the
        silence between two pieces of the answer. Raises `ServiceUnavailable` while sending.
        """
        passed = REQUEST_HEADERS | BODY_HEADERS if with_body else REQUEST_HEADERS
        # As bytes: httpx would refuse text that is not ASCII.
        headers = [(name, value) for name, value in request.headers.raw if name in passed]
        headers.append((REQUEST_ID_HEADER.encode(), (request_id.get() or "").encode()))
        if (key := _given_key(request)) is not None:
            headers.append((CALLER_KEY_HEADER.encode(), key))
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
        return _Exchange(client, outgoing, body)

    async def close(self) -> None:
        """Close what is open."""
        await self._calls.aclose()
        await self._uploads.aclose()


class _Exchange(Response):
    """One relayed request and its answer. It ends at once when the client goes away."""

    def __init__(self, client: httpx.AsyncClient, outgoing: httpx.Request, body: "_ClientBody") -> None:
        super().__init__()
        self._client = client
        self._outgoing = outgoing
        self._body = body

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Ask, and pass the answer on."""
        relaying = asyncio.create_task(self._relay(send))
        watching = asyncio.create_task(self._body.wait_until_gone())
        try:
            await asyncio.wait((relaying, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # A cancelled request closes its connection, by which the private API learns that nobody waits.
            relaying.cancel()
            watching.cancel()
            await asyncio.wait((relaying, watching))
        if not relaying.cancelled() and (error := relaying.exception()):
            raise error

    async def _relay(self, send: Send) -> None:
        try:
            answer = await self._client.send(self._outgoing, stream=True)
        except httpx.TransportError as error:
            raise _unavailable(self._outgoing, error) from error
        except ClientDisconnect:
            return
        try:
            headers = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() in ANSWER_HEADERS]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
            async for piece in answer.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except httpx.TransportError as error:
            # Without its last piece the server cuts the connection: the client sees that the answer is not whole.
            logger.warning("%s %s: the answer broke off: %r", self._outgoing.method, self._outgoing.url.path, error)
        finally:
            await answer.aclose()


class _ClientBody:
    """The body that the client sends, and whether the client is still there.

    `receive` has one reader at a time: `read` until the body ended, then `wait_until_gone`.
    """

    def __init__(self, receive: Receive, *, is_relayed: bool) -> None:
        self._receive = receive
        self._was_read = asyncio.Event()
        if not is_relayed:
            self._was_read.set()
        self._upstream: httpcore.AsyncNetworkStream | None = None

    async def note_connection(self, event: str, details: dict[str, Any]) -> None:
        """httpcore's trace: keeps the connection that the request goes out on."""
        if event == "connection.connect_tcp.complete":
            self._upstream = details["return_value"]

    async def read(self) -> AsyncIterator[bytes]:
        """The pieces, until the body ends or the private API has answered. Raises `ClientDisconnect`."""
        try:
            more = True
            while more:
                message = await self._next_message()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                more = message.get("more_body", False)
                if not more:
                    # Before the last piece: from here on it is the watcher that sees the client go.
                    self._was_read.set()
                if piece := message.get("body", b""):
                    yield piece
        finally:
            self._was_read.set()

    async def wait_until_gone(self) -> None:
        """Return when the client is gone; what it still sends after an early answer is dropped."""
        await self._was_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next_message(self) -> Message:
        while True:
            if self._has_answer():
                # The one exception upon which httpcore stops sending and goes on to read the answer.
                raise httpcore.WriteError("the private API answered before the body ended")
            try:
                async with asyncio.timeout(_LOOK_S):
                    return await self._receive()
            except TimeoutError:
                continue

    def _has_answer(self) -> bool:
        # While a request is being sent nobody reads the socket, so bytes in it are an answer, or its end.
        return self._upstream is not None and bool(self._upstream.get_extra_info("is_readable"))


def _given_key(request: Request) -> bytes | None:
    """The client's key, as it came: what is wrong with it the private API says."""
    given = dict(reversed(request.headers.raw))
    if (key := given.get(b"x-api-key")) is not None:
        return key
    scheme, _, key = given.get(b"authorization", b"").partition(b" ")
    # Other schemes are between the client and whatever stands in front of this server.
    return key.strip() if scheme.lower() == b"bearer" else None


def _unavailable(request: httpx.Request, error: httpx.TransportError) -> ServiceUnavailable:
    logger.warning("%s %s: the private API: %r", request.method, request.url.path, error)
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return ServiceUnavailable("The private API cannot be reached right now. Nothing was lost; repeat the request.")
    return ServiceUnavailable(
        "The private API did not answer. Repeat the request; a submission with the same Idempotency-Key runs only once."
    )
