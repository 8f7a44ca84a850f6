"""`/internal/gateways/`: the calls of gateways, and of Traefik. No door relays them."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.concurrency import run_in_threadpool

from contract.access import CALLER_KEY_HEADER
from contract.deployments import CallerView, GatewayReport, RoutingTable
from contract.errors import DeploymentNotFound, Unauthenticated
from kit.http_errors import document_errors
from kit.http_server import stopping_of
from private_api.deployments.gateways import forget_gateway, note_demand, note_report
from private_api.deployments.routing import read_table, render_express_routes
from private_api.keys import check_key
from private_api.routes.json_bodies import JsonRouter
from private_api.services import Services
from private_api.watch import DEPLOYMENTS

_LONGEST_WAIT_S = 60


def gateway_routes(services: Services) -> APIRouter:
    router = JsonRouter(prefix="/internal/gateways", tags=["gateways"])
    database = services.database

    @router.get("/table")
    async def show_table(
        request: Request,
        etag: Annotated[str | None, Query(max_length=64, description="The table that is known already.")] = None,
        wait: Annotated[float, Query(ge=0, le=_LONGEST_WAIT_S, description="Hold the answer until it changes.")] = 0,
    ) -> RoutingTable:
        """The routing table, once it differs from `etag`'s or `wait` is over."""
        clock, stopping = asyncio.get_running_loop().time, stopping_of(request.scope)
        ends_at = clock() + wait
        async with services.watch.watch(DEPLOYMENTS) as watcher:
            while True:
                found = await run_in_threadpool(read_table, database)
                left = ends_at - clock()
                if found.etag != etag or left <= 0 or stopping.is_set() or await request.is_disconnected():
                    return found
                await watcher.changed(left, stopping)

    @router.post("/reports")
    def report_gateway(body: GatewayReport) -> None:
        """Keep the newest report of a gateway process."""
        note_report(database, body)

    @router.delete("/reports/{gateway}", name="forget_gateway")
    def leave(gateway: Annotated[str, Path(max_length=200)]) -> None:
        """Forget a gateway process that is gone and holds nothing."""
        forget_gateway(database, gateway)

    @router.post("/demands/{human_readable_id}", responses=document_errors(DeploymentNotFound))
    def demand_replica(human_readable_id: str) -> None:
        """Note that a call waits for a replica."""
        note_demand(database, human_readable_id)
        services.scale()

    @router.post("/callers", responses=document_errors(Unauthenticated))
    def check_caller(key: Annotated[str, Header(alias=CALLER_KEY_HEADER)] = "") -> CallerView:
        """The caller that a key stands for."""
        caller = check_key(database, key)
        return CallerView(owner=caller.owner or "", scopes=sorted(caller.scopes))

    return router


def express_routes(services: Services) -> APIRouter:
    """The routes for Traefik, which sends no token."""
    router = JsonRouter(prefix="/internal/gateways", tags=["gateways"])

    @router.get("/traefik")
    def show_express_routes() -> dict[str, Any]:
        """Traefik's dynamic configuration of the express lane; it holds no secret and is asked without a token."""
        return render_express_routes(read_table(services.database), services.domain)

    return router
