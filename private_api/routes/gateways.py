"""`/internal/gateways/`: what gateways ask and say, and what Traefik asks. Never relayed by a door."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.concurrency import run_in_threadpool

from contract.access import CALLER_KEY_HEADER
from contract.deployments import CallerView, GatewayReport, RoutingTable
from contract.errors import DeploymentNotFound, Unauthenticated
from contract.http_errors import document_errors
from private_api.deployments.gateways import forget_gateway, note_demand, note_report
from private_api.deployments.routing import read_table, render_express_routes
from private_api.keys import check_key
from private_api.services import Services
from private_api.watch import DEPLOYMENTS

_LONGEST_WAIT_S = 60


def gateway_routes(services: Services) -> APIRouter:
    """The routes over `services`."""
    router = APIRouter(prefix="/internal/gateways", tags=["gateways"])
    database = services.database

    @router.get("/table")
    async def table(
        request: Request,
        etag: Annotated[str | None, Query(max_length=64, description="The table that is known already.")] = None,
        wait: Annotated[float, Query(ge=0, le=_LONGEST_WAIT_S, description="Hold the answer until it changes.")] = 0,
    ) -> RoutingTable:
        """The routing table."""
        ends_at = asyncio.get_running_loop().time() + wait
        async with services.watch.watch(DEPLOYMENTS) as watcher:
            while True:
                found = await run_in_threadpool(read_table, database)
                left = ends_at - asyncio.get_running_loop().time()
                if found.etag != etag or left <= 0 or await request.is_disconnected():
                    return found
                await watcher.changed(left)

    @router.post("/reports")
    def report(body: GatewayReport) -> None:
        """What one gateway process does right now."""
        note_report(database, body)

    @router.delete("/reports/{gateway}")
    def leave(gateway: Annotated[str, Path(max_length=200)]) -> None:
        """A gateway process is gone and holds nothing."""
        forget_gateway(database, gateway)

    @router.post("/demands/{human_readable_id}", responses=document_errors(DeploymentNotFound))
    def demand(human_readable_id: str) -> None:
        """A call waits for a replica."""
        note_demand(database, human_readable_id)
        services.scale()

    @router.post("/callers", responses=document_errors(Unauthenticated))
    def check_caller(key: Annotated[str, Header(alias=CALLER_KEY_HEADER)] = "") -> CallerView:
        """Who a key stands for."""
        caller = check_key(database, key)
        return CallerView(owner=caller.owner or "", scopes=sorted(caller.scopes))

    return router


def express_routes(services: Services) -> APIRouter:
    """What Traefik asks, which shows no token: the routes over `services`."""
    router = APIRouter(prefix="/internal/gateways", tags=["gateways"])

    @router.get("/traefik")
    def traefik() -> dict[str, Any]:
        """Traefik's dynamic configuration of the express lane; it holds no secret and is asked without a token."""
        return render_express_routes(read_table(services.database), services.domain)

    return router
