"""`/internal/replicas/`: what consumers do with replicas. Never relayed by a door."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from contract.deployments import ReplicaAssignment, ReplicaBeat, ReplicaBeatReply, ReplicaClaim, ReplicaEnd
from contract.errors import PermissionDenied, StaleFence
from contract.http_errors import ZIP_ANSWER, document_errors
from contract.schemas import UID_PATTERN
from private_api.deployments.hosting import (
    beat_replica,
    claim_replica,
    end_replica,
    replica_archive,
    show_replica,
)
from private_api.routes.access import GivenCaller
from private_api.routes.answers import ZipResponse
from private_api.services import Services
from private_api.tasks.consumers import check_replica_host
from private_api.tasks.read import Output

Uid = Annotated[str, Path(pattern=UID_PATTERN)]
Fence = Annotated[int, Path(ge=1)]


def replica_routes(services: Services) -> APIRouter:
    """The routes over `services`."""
    router = APIRouter(prefix="/internal/replicas", tags=["consumers"], responses=document_errors(StaleFence))

    @router.post("/claims")
    def claim(body: ReplicaClaim, caller: GivenCaller) -> ReplicaAssignment | None:
        """A replica for this consumer under a new fence, or null where there is none."""
        return claim_replica(services.database, body, services.hosting, owner=caller.owner)

    _add_replicas(router, services)
    return router


def _add_replicas(parent: APIRouter, services: Services) -> None:
    database, hosting = services.database, services.hosting

    def find_host(uid: Uid, caller: GivenCaller) -> str | None:
        return check_replica_host(database, uid, owner=caller.owner)

    # In front of every route of a replica: only who claimed it may call it.
    router = APIRouter(prefix="/{uid}/{fence}", dependencies=[Depends(find_host)])

    @router.get("")
    def show(uid: Uid, fence: Fence) -> ReplicaAssignment:
        """The assignment of a replica that is still its holder's."""
        return show_replica(database, uid, fence, hosting)

    @router.post("/heartbeat")
    def beat(
        uid: Uid, fence: Fence, body: ReplicaBeat, caller: GivenCaller, host: Annotated[str | None, Depends(find_host)]
    ) -> ReplicaBeatReply:
        """Keep the lease, and say whether the container is ready."""
        if caller.owner is not None and host not in (None, body.consumer):
            raise PermissionDenied(f"this replica is one of {host}, not of {body.consumer}")
        reply, became_ready = beat_replica(database, uid, fence, body)
        if became_ready:
            services.note_deployments()
        return reply

    @router.get("/model", response_class=Response, responses=dict(ZIP_ANSWER))
    def fetch_model(uid: Uid, fence: Fence) -> Response:
        """The model's zip."""
        key, archive = replica_archive(database, uid, fence)
        return ZipResponse(services.store, Output(key, archive.sha256, archive.size_bytes))

    @router.post("/end")
    def end(uid: Uid, fence: Fence, body: ReplicaEnd) -> None:
        """The container is no more."""
        end_replica(database, uid, fence, body)
        services.note_deployments()

    parent.include_router(router)
