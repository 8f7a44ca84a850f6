"""`/api/events`: what happens, as Server-Sent Events."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from contract.errors import TooManyStreams
from contract.events import LAST_EVENT_ID_HEADER, MEDIA_TYPE, DeploymentEvent, EventsQuery, QueueEvent, TaskEvent
from contract.overview import ConsumerView
from kit.http_errors import document_errors
from public_api.relay import Relay

_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A stream that does not end. `data` is JSON: by the `event` field a `TaskEvent` (`task`), a "
        "`ConsumerView` (`consumer`), a `DeploymentEvent` (`deployment`) or a `QueueEvent` (`queue`).",
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        "model": TaskEvent | ConsumerView | DeploymentEvent | QueueEvent,
    },
    **document_errors(TooManyStreams),
}


async def _document_place(
    last_event_id: Annotated[
        int | None,
        Header(
            alias=LAST_EVENT_ID_HEADER,
            ge=0,
            le=2**63 - 1,
            description="The id of the last event that was received; browsers send it by themselves.",
        ),
    ] = None,
) -> None:
    """Check the header, and put it into OpenAPI; the relay forwards it."""


def event_routes(relay: Relay) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["overview"])

    @router.get("/events/", include_in_schema=False, dependencies=[Depends(_document_place)])
    @router.get("/events", response_class=Response, responses=_ANSWER, dependencies=[Depends(_document_place)])
    async def stream_events(request: Request, query: Annotated[EventsQuery, Query()]) -> Response:
        """What happens, as it happens: one stream of Server-Sent Events keeps a page live.

        `task`: every change of the status of the tasks that the caller may list; after `Last-Event-ID` none is left
        out. `consumer`, `deployment`, `queue`: how each stands, at first and whenever that changes.
        """
        return relay.forward(request, "/api/events", query=query, is_endless=True)

    return router
