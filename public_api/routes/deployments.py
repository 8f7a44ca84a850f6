"""`/api/models/<id>/deployment` and `/api/deployments/`: keeping models warm, and listing those that are."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from contract.deployments import DeploymentQuery, DeploymentView
from contract.errors import DeploymentNotFound, ModelNotFound, ModelRetired, NameTaken, PermissionDenied, TooLarge
from kit.http_errors import document_errors
from public_api.relay import Relay
from public_api.routes.parameters import DeploymentIdPart, ModelIdPart, ModelReferencePart

_PATH = "/models/{human_readable_id}/deployment"
# The body is relayed as it comes; the answer's schema brings `ServingSpec` into the document.
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/ServingSpec"},
                "example": {"port": 8001, "protocol": "kserve", "replicas_min": 1},
            }
        },
    }
}


def deployment_routes(relay: Relay) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["deployments"])

    @router.post(
        _PATH,
        response_model=DeploymentView,
        openapi_extra=_BODY,
        responses=document_errors(PermissionDenied, ModelNotFound, ModelRetired, NameTaken, TooLarge),
    )
    async def deploy(request: Request, human_readable_id: ModelReferencePart) -> Response:
        """Keep the model's default version warm, or that of `<name>@<version>`.

        Again: replaces version and description, and replicas that they concern. A deployment keeps its version until
        then, whichever becomes the default.
        """
        return relay.forward(request, f"/api/models/{human_readable_id}/deployment", with_body=True)

    @router.get(_PATH, response_model=DeploymentView, responses=document_errors(DeploymentNotFound))
    async def show_deployment(request: Request, human_readable_id: DeploymentIdPart) -> Response:
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
    async def list_deployments(request: Request, query: Annotated[DeploymentQuery, Query()]) -> Response:
        """Every deployment in the order of ids; `after` is the last id of the page before."""
        return relay.forward(request, "/api/deployments/", query=query)

    return router
