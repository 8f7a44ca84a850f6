"""Deployments: keeping models warm, and looking at what is kept warm."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from contract.deployments import DeploymentQuery, DeploymentView
from contract.errors import DeploymentNotFound, ModelNotFound, NameTaken, PermissionDenied
from contract.http_errors import document_errors
from public_api.relay import Relay
from public_api.routes.parameters import DeploymentIdPart, ModelIdPart

_PATH = "/models/{human_readable_id}/deployment"
# Relayed as it comes; the answer brings the schema into the document.
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Serving"},
                "example": {"port": 8001, "protocol": "kserve", "replicas_min": 1},
            }
        },
    }
}


def deployment_routes(relay: Relay) -> APIRouter:
    """The routes over `relay`."""
    router = APIRouter(prefix="/api", tags=["deployments"])

    @router.post(
        _PATH,
        response_model=DeploymentView,
        openapi_extra=_BODY,
        responses=document_errors(PermissionDenied, ModelNotFound, NameTaken),
    )
    async def deploy(request: Request, human_readable_id: ModelIdPart) -> Response:
        """Keep the model's newest version warm. Again: replaces the description, and replicas that it concerns."""
        return relay.forward(request, f"/api/models/{human_readable_id}/deployment", with_body=True)

    @router.get(_PATH, response_model=DeploymentView, responses=document_errors(DeploymentNotFound))
    async def show(request: Request, human_readable_id: DeploymentIdPart) -> Response:
        """The deployment, its replicas that live and the last few that ended."""
        return relay.forward(request, f"/api/models/{human_readable_id}/deployment")

    @router.delete(
        _PATH, status_code=204, response_class=Response, responses=document_errors(PermissionDenied, ModelNotFound)
    )
    async def undeploy(request: Request, human_readable_id: ModelIdPart) -> Response:
        """Keep the model warm no longer: its replicas finish their calls and end. Again: nothing."""
        return relay.forward(request, f"/api/models/{human_readable_id}/deployment")

    @router.get("/deployments", include_in_schema=False)
    @router.get("/deployments/", response_model=list[DeploymentView])
    async def list_all(request: Request, query: Annotated[DeploymentQuery, Query()]) -> Response:
        """Every deployment in the order of ids; `after` is the last id of the page before."""
        return relay.forward(request, "/api/deployments/", query=query)

    return router
