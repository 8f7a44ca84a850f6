"""`/api/queue` and `/api/consumers/`: what runs on this server, and what it waits for."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from contract.errors import ConsumerNotFound
from contract.overview import ConsumerView, QueueQuery, QueueView
from contract.schemas import ListQuery
from kit.http_errors import document_errors
from public_api.relay import Relay


async def check_name(
    name: Annotated[str, Path(max_length=200, description="The consumer's name.", examples=["gpu-host-1"])],
) -> str:
    """The name, encoded for a URL. Raises `ConsumerNotFound` for one that might lead elsewhere."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ConsumerNotFound
    return quote(name, safe="/")


_Name = Annotated[str, Depends(check_name)]


def overview_routes(relay: Relay) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["overview"])

    @router.get("/queue/", include_in_schema=False)
    @router.get("/queue", response_model=QueueView)
    async def show_queue(request: Request, query: Annotated[QueueQuery, Query()]) -> Response:
        """How many tasks wait and run, for how many consumers, and what the first of each kind waits for.

        `tasks` has those of the key's owner with their positions; with the scope `operate` everybody's; without a key
        none.
        """
        return relay.forward(request, "/api/queue", query=query)

    @router.get("/consumers", include_in_schema=False)
    @router.get("/consumers/", response_model=list[ConsumerView])
    async def list_consumers(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
        """Every consumer by name: when it was heard from, what it runs, why it takes nothing. Needs a key.

        `after` is the last name of the page before. `owner`, and tasks of other owners, need the scope `operate`.
        """
        return relay.forward(request, "/api/consumers/", query=query)

    not_found = document_errors(ConsumerNotFound)

    @router.post("/consumers/{name:path}/drain", response_model=ConsumerView, responses=not_found)
    async def drain_consumer(request: Request, name: _Name) -> Response:
        """Let a consumer finish what it has and take nothing new, until it is resumed. Needs the scope `operate`.

        Its task goes on. Its replicas end once others have taken their place, or at once if there is no room for
        others. Draining a consumer that drains is fine.
        """
        return relay.forward(request, f"/api/consumers/{name}/drain")

    @router.post("/consumers/{name:path}/resume", response_model=ConsumerView, responses=not_found)
    async def resume_consumer(request: Request, name: _Name) -> Response:
        """Let a consumer that drains take work again. Needs the scope `operate`."""
        return relay.forward(request, f"/api/consumers/{name}/resume")

    return router
