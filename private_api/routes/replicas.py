"""`/internal/replicas/`: the calls of consumers about replicas. No door relays them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from contract.deployments import ReplicaAssignment, ReplicaBeat, ReplicaBeatReply, ReplicaClaim, ReplicaEnd
from contract.errors import DeploymentNotFound, PermissionDenied, StaleFence
from contract.schemas import UID_PATTERN
from kit.http_errors import document_errors
from kit.openapi import ZIP_ANSWER
from private_api.deployments.replicas import beat_replica, end_replica, replica_archive, show_replica
from private_api.placement.consumers import check_replica_host
from private_api.placement.replica_claim import claim_replica
from private_api.routes.access import GivenCaller
from private_api.routes.answers import answer_consumer
from private_api.routes.json_bodies import JsonRouter
from private_api.services import Services

Uid = Annotated[str, Path(pattern=UID_PATTERN)]
Fence = Annotated[int, Path(ge=1)]


def replica_routes(services: Services) -> APIRouter:
    router = JsonRouter(prefix="/internal/replicas", tags=["consumers"], responses=document_errors(StaleFence))

    @router.post("/claims", name="claim_replica")
    async def claim(body: ReplicaClaim, caller: GivenCaller) -> ReplicaAssignment | None:
        """A replica for this consumer under a new fence, or null if there is none."""
        return await services.holders.run(claim_replica, body, services.hosting, owner=caller.owner)

    _add_replicas(router, services)
    return router


def _add_replicas(parent: APIRouter, services: Services) -> None:
    database, hosting, holders = services.database, services.hosting, services.holders

    async def find_host(uid: Uid, caller: GivenCaller) -> str | None:
        return await holders.run(check_replica_host, uid, owner=caller.owner)

    # Before every route of a replica: only the consumer that claimed it may call.
    router = JsonRouter(
        prefix="/{uid}/{fence}", dependencies=[Depends(find_host)], responses=document_errors(DeploymentNotFound)
    )

    @router.get("", name="show_replica")
    async def show(uid: Uid, fence: Fence) -> ReplicaAssignment:
        """The assignment of a replica that this fence still holds."""
        return await holders.run(show_replica, uid, fence, hosting)

    @router.post("/heartbeat", name="beat_replica")
    async def beat(
        uid: Uid, fence: Fence, body: ReplicaBeat, caller: GivenCaller, host: Annotated[str | None, Depends(find_host)]
    ) -> ReplicaBeatReply:
        """Extend the lease, and report whether the container is ready."""
        if caller.owner is not None and host not in (None, body.consumer):
            raise PermissionDenied(f"this replica is one of {host}, not of {body.consumer}")
        reply, has_changed = await holders.run(beat_replica, uid, fence, body)
        if has_changed:
            services.note_deployments()
        return reply

    @router.get("/model", response_class=Response, responses=dict(ZIP_ANSWER))
    def fetch_replica_model(request: Request, uid: Uid, fence: Fence) -> Response:
        """The model's zip."""
        return answer_consumer(request, services, replica_archive(database, uid, fence))

    @router.post("/end", name="end_replica")
    async def end(uid: Uid, fence: Fence, body: ReplicaEnd) -> None:
        """The container of the replica has ended."""
        await holders.run(end_replica, uid, fence, body)
        services.note_deployments()

    parent.include_router(router)
