"""`/internal/image-lookups`: what consumers look up of models' images, and how long a registration waits for that."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from contract.access import Caller
from contract.errors import ConsumerNotFound
from contract.image_lookups import ImageLookup, LookupResults
from contract.schemas import ModelView
from kit.http_errors import document_errors
from kit.http_server import stopping_of
from private_api.models import show_model
from private_api.placement.image_lookups import add_findings, due_lookups, is_looked_up, keep_findings
from private_api.routes.access import GivenCaller
from private_api.routes.json_bodies import JsonRouter
from private_api.services import Services
from private_api.watch import IMAGE_FINDINGS, IMAGE_LOOKUPS

_LONGEST_HOLD_S = 60
_REGISTRATION_WAITS_S = 3.0
"""A registry that takes longer is not waited for: the model's view says what was found."""


def image_lookup_routes(services: Services) -> APIRouter:
    router = JsonRouter(
        prefix="/internal/image-lookups", tags=["consumers"], responses=document_errors(ConsumerNotFound)
    )

    @router.get("")
    async def wait_for_lookups(
        request: Request,
        caller: GivenCaller,
        consumer: Annotated[str, Query(max_length=200)],
        wait: Annotated[float, Query(ge=0, le=_LONGEST_HOLD_S, description="Hold the answer until then.")] = 0,
    ) -> list[ImageLookup]:
        """The images that this consumer is to look up, as soon as there are any."""
        clock, stopping = asyncio.get_running_loop().time, stopping_of(request.scope)
        ends_at = clock() + wait
        async with services.watch.watch(IMAGE_LOOKUPS) as watcher:
            while not (due := await services.holders.run(due_lookups, consumer, owner=caller.owner)):
                left = ends_at - clock()
                if left <= 0 or stopping.is_set() or await request.is_disconnected():
                    break
                await watcher.changed(left, stopping)
        return due

    @router.post("", status_code=204)
    async def report_lookups(found: LookupResults, caller: GivenCaller) -> None:
        """What this consumer found."""
        await services.holders.run(keep_findings, found, owner=caller.owner)
        services.watch.notify(IMAGE_FINDINGS)

    return router


async def wait_for_findings(services: Services, view: ModelView, caller: Caller) -> ModelView:
    """Have the consumers look up a new version's image; the version with what they found within three seconds."""
    clock = asyncio.get_running_loop().time
    ends_at = clock() + _REGISTRATION_WAITS_S
    async with services.watch.watch(IMAGE_FINDINGS) as watcher:
        services.watch.notify(IMAGE_LOOKUPS)
        while not await run_in_threadpool(is_looked_up, services.database, view):
            left = ends_at - clock()
            if left <= 0:
                break
            await watcher.changed(left)
    return await run_in_threadpool(_look_again, services, view, caller)


def _look_again(services: Services, view: ModelView, caller: Caller) -> ModelView:
    # What was found may have pinned it.
    newest = show_model(services.database, f"{view.human_readable_id}@{view.version}", caller)
    return add_findings(services.database, [newest], caller)[0]
