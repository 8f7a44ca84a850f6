"""`/api/queue` and `/api/consumers/`: what runs on this server, and what it waits for."""

from typing import Annotated

from fastapi import APIRouter, Query

from contract.access import Caller, Scope
from contract.errors import ConsumerNotFound
from contract.overview import ConsumerView, QueueQuery, QueueView
from contract.schemas import ListQuery
from kit.http_errors import document_errors
from private_api.placement.consumers import set_draining
from private_api.placement.fleet import list_consumers, show_consumer
from private_api.placement.queue import read_queue
from private_api.routes.access import GivenCaller
from private_api.routes.json_bodies import JsonRouter
from private_api.services import Services


def overview_routes(services: Services) -> APIRouter:
    router = JsonRouter(prefix="/api", tags=["overview"])
    database = services.database

    @router.get("/queue")
    def show_queue(query: Annotated[QueueQuery, Query()], caller: GivenCaller) -> QueueView:
        """How many tasks wait and run, and those of them that the caller may see."""
        return read_queue(database, caller, limit=query.limit)

    @router.get("/consumers/", name="list_consumers")
    def list_all(query: Annotated[ListQuery, Query()], caller: GivenCaller) -> list[ConsumerView]:
        """Every consumer in the order of names; `after` is the last name of the page before. Needs a key."""
        return list_consumers(database, caller, limit=query.limit, after=query.after)

    @router.post("/consumers/{name:path}/drain", name="drain_consumer", responses=document_errors(ConsumerNotFound))
    def drain(name: str, caller: GivenCaller) -> ConsumerView:
        """Let the consumer finish what it has and take nothing new. Needs the scope `operate`."""
        return change(name, caller, is_draining=True)

    @router.post("/consumers/{name:path}/resume", name="resume_consumer", responses=document_errors(ConsumerNotFound))
    def resume(name: str, caller: GivenCaller) -> ConsumerView:
        """Let a consumer that drains take work again. Needs the scope `operate`."""
        return change(name, caller, is_draining=False)

    def change(name: str, caller: Caller, *, is_draining: bool) -> ConsumerView:
        caller.require(Scope.OPERATE, "Draining and resuming consumers needs a key with the scope operate.")
        set_draining(database, name, is_draining=is_draining)
        services.note_deployments()
        return show_consumer(database, caller, name)

    return router
