"""Polls that wait for each other: while one call asks the private API about tasks, the next ones gather for one more.

A lone poll is asked at once. Of a crowd's polls hundreds ride in one call, which costs both sides little more than one.
"""

import asyncio
import re
from contextvars import Context

import httpx
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from contract.access import read_key
from contract.errors import ServiceUnavailable, TaskPending
from contract.polls import LONGEST_KEY, MAX_POLLS, Poll, PollAnswers, PollBatch
from kit.http_errors import render_error
from public_api.relay import Relay
from public_api.sites import SiteGuard

_PATH = re.compile(r"/api/tasks/([0-9a-f]{64})")
_HEADERS = {"retry-after": str(TaskPending.retry_after_s)}
_NOT_KNOWN_S = 60.0
"""How long a private API of the release before, which answers no batch, is not asked again."""

_Waiting = tuple[Poll, asyncio.Future[str | None]]


class Polls:
    """Asks for polls together. It belongs to one event loop."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._waiting: list[_Waiting] = []
        self._asking: asyncio.Task[None] | None = None
        self._not_before = float("-inf")

    async def ask(self, uid: str, key: str | None) -> str | None:
        """The body that answers the poll of a task that is queued; None for any other, which is to be relayed.

        Raises `ServiceUnavailable`.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._not_before:
            return None
        answer: asyncio.Future[str | None] = loop.create_future()
        self._waiting.append((Poll.model_construct(uid=uid, key=key), answer))
        if self._asking is None or self._asking.done():
            # In a context of its own: what it asks and logs is not the request of the poll that came first.
            self._asking = asyncio.create_task(self._ask_all(), context=Context())
        return await answer

    async def _ask_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_POLLS], self._waiting[MAX_POLLS:]
            try:
                bodies = await self._ask([poll for poll, _ in batch])
            except Exception as error:
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), body in zip(batch, bodies, strict=True):
                # Whose client is gone is done.
                if not answer.done():
                    answer.set_result(body)

    async def _ask(self, polls: list[Poll]) -> list[str | None]:
        response = await self._relay.call("/internal/polls", PollBatch.model_construct(polls=polls).model_dump_json())
        if response.status_code == httpx.codes.NOT_FOUND:
            self._not_before = asyncio.get_running_loop().time() + _NOT_KNOWN_S
        if response.is_success:
            try:
                bodies = PollAnswers.model_validate_json(response.content).bodies
            except ValidationError:
                bodies = []
            if len(bodies) == len(polls):
                return bodies
        # Each of them alone is told what is wrong.
        return [None] * len(polls)


class PolledTogether:
    """Answers polls of queued tasks, before the framework routes them; passes every other request on."""

    def __init__(self, app: ASGIApp, polls: Polls, guard: SiteGuard) -> None:
        self._app = app
        self._polls = polls
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            body = await self._ask(scope)
        except ServiceUnavailable as error:
            await render_error(error)(scope, receive, send)
            return
        if body is None:
            await self._app(scope, receive, send)
            return
        answer = Response(body, TaskPending.http_status, _HEADERS, "application/json")
        await answer(scope, receive, send)

    async def _ask(self, scope: Scope) -> str | None:
        if (uid := _polled(scope)) is None:
            return None
        headers = Headers(scope=scope)
        key = read_key(headers)
        if not self._guard.knows(headers.get("host", "")) or len(key or "") > LONGEST_KEY:
            return None
        return await self._polls.ask(uid, key)


def _polled(scope: Scope) -> str | None:
    """The uid that a poll without a query asks for; None if it is another request."""
    if scope["type"] != "http" or scope["method"] != "GET" or scope["query_string"]:
        return None
    match = _PATH.fullmatch(scope["path"])
    return match and match[1]
