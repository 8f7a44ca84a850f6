"""`/api/events`: what happens, as Server-Sent Events. A stream holds neither a thread nor a database connection."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from contract.access import Caller
from contract.errors import ServiceUnavailable, TooManyStreams
from contract.events import KEEP_ALIVE_S, LAST_EVENT_ID_HEADER, MEDIA_TYPE, EventsQuery, EventType
from kit.http_errors import document_errors
from kit.http_server import stopping_of
from private_api.feed.changes import Change
from private_api.feed.feed import Moment
from private_api.routes.access import GivenCaller
from private_api.routes.json_bodies import JsonRouter
from private_api.services import Services
from private_api.watch import FEED, Watcher

_RETRY_MS = 2000
"""After which pause browsers connect again."""
_NOT_BUFFERED = {"cache-control": "no-store", "x-accel-buffering": "no"}


def event_routes(services: Services) -> APIRouter:
    router = JsonRouter(prefix="/api", tags=["overview"])

    @router.get("/events", response_class=Response, responses=document_errors(TooManyStreams))
    async def stream_events(
        query: Annotated[EventsQuery, Query()],
        caller: GivenCaller,
        last_event_id: Annotated[int | None, Header(alias=LAST_EVENT_ID_HEADER, ge=0, le=2**63 - 1)] = None,
    ) -> Response:
        """What happens, as it happens: of tasks every change after `Last-Event-ID`, of the rest how it stands now."""
        return _Answer(_Stream(services, caller, query, last_event_id))

    return router


class _Answer(StreamingResponse):
    """Takes a seat at the feed for as long as the stream lasts. Raises `TooManyStreams` while sending."""

    def __init__(self, stream: "_Stream") -> None:
        super().__init__(stream.write(), media_type=MEDIA_TYPE, headers=_NOT_BUFFERED)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client goes or the server stops."""
        self._stream.stopping = stopping_of(scope)
        with self._stream.services.feed.seat(self._stream.caller):
            await super().__call__(scope, receive, send)


class _Stream:
    """One client's stream. It remembers where it is, and reads on only when the client took what it was sent."""

    def __init__(self, services: Services, caller: Caller, query: EventsQuery, last_event_id: int | None) -> None:
        self.services = services
        self.caller = caller
        self.stopping = asyncio.Event()
        self._last_event_id = last_event_id
        self._types = frozenset(query.type or EventType)
        self._uids = frozenset(query.uid)
        self._cursor = 0
        self._look = 0
        self._wrote_at = 0.0

    async def write(self) -> AsyncIterator[str]:
        """The pieces of the answer."""
        feed = self.services.feed
        async with self.services.watch.watch(FEED) as watcher:
            self.services.look()
            while (moment := feed.moment) is None:
                if await self._pause(watcher):
                    return
            try:
                self._cursor = await run_in_threadpool(feed.place, self._last_event_id, moment)
                yield self._note(f"retry: {_RETRY_MS}\nid: {self._cursor}\n\n")
                while not self.stopping.is_set():
                    async for piece in self._tell(feed.moment or moment):
                        yield self._note(piece)
                    if await self._pause(watcher) or await self._has_key_ended():
                        return
                    if self._is_silent():
                        # An id without data moves the client on past changes that it may not see.
                        yield self._note(f": keep-alive\nid: {self._cursor}\n\n")
            except ServiceUnavailable:
                # The client comes back to where it was.
                return

    async def _tell(self, moment: Moment) -> AsyncIterator[str]:
        """What is new at this moment."""
        is_first, before, self._look = self._look == 0, self._look, moment.look
        news = [fact for fact in moment.facts.values() if fact.changed > before and fact.type in self._types]
        for fact in news:
            data = fact.told_to(self.caller, self._uids)
            if data is not None and not (is_first and fact.is_gone):
                yield _event(fact.type, data)
        while self._cursor < moment.settled and not self.stopping.is_set():
            page = moment.page(self._cursor)
            if page is None:
                page = await run_in_threadpool(self.services.feed.read_stored, self._cursor, moment.settled)
            changes, reached = page
            for piece in self._visible(changes):
                yield piece
            self._cursor = reached
            if self._is_silent():
                yield f": keep-alive\nid: {reached}\n\n"

    def _visible(self, changes: Sequence[Change]) -> list[str]:
        if EventType.TASK not in self._types:
            return []
        seen = [change for change in changes if change.is_open_to(self.caller, self._uids)]
        return [_event(EventType.TASK, change.event, change.id) for change in seen]

    async def _pause(self, watcher: Watcher) -> bool:
        """Wait for news, or for when something must be done without any. Returns whether the server stops."""
        await watcher.changed(KEEP_ALIVE_S)
        return self.stopping.is_set()

    async def _has_key_ended(self) -> bool:
        """Raises `ServiceUnavailable`."""
        return await run_in_threadpool(self.services.ended_keys.holds, self.caller)

    def _note(self, piece: str) -> str:
        self._wrote_at = asyncio.get_running_loop().time()
        return piece

    def _is_silent(self) -> bool:
        return asyncio.get_running_loop().time() - self._wrote_at >= KEEP_ALIVE_S


def _event(type_: EventType, data: BaseModel, id_: int | None = None) -> str:
    place = "" if id_ is None else f"id: {id_}\n"
    # JSON has no line ends outside its texts, and in them they are escaped.
    return f"event: {type_}\n{place}data: {data.model_dump_json()}\n\n"
