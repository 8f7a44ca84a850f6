"""Deployments: what operators do with them."""

from typing import Annotated

from fastapi import APIRouter, Query

from contract.access import Scope
from contract.deployments import DeploymentQuery, DeploymentView
from contract.errors import DeploymentNotFound, ModelNotFound, NameTaken, PermissionDenied
from contract.http_errors import document_errors
from contract.serving import Serving
from private_api.deployments.deploy import deploy_model, undeploy_model
from private_api.deployments.read import list_deployments, show_deployment
from private_api.deployments.scale import scale_model
from private_api.routes.access import GivenCaller
from private_api.services import Services

_CLOSED = (
    "Models cannot be deployed here: the operator has to set ALLOW_PUBLIC_POST_MODEL=1, or to give your key the scope "
    "models."
)


def deployment_routes(services: Services) -> APIRouter:
    """The routes over `services`."""
    router = APIRouter(prefix="/api", tags=["deployments"])
    database = services.database
    path = "/models/{human_readable_id}/deployment"

    @router.post(path, responses=document_errors(PermissionDenied, ModelNotFound, NameTaken))
    def deploy(human_readable_id: str, serving: Serving, caller: GivenCaller) -> DeploymentView:
        """Keep the model's newest version warm. Again: replaces the description, and replicas that it concerns."""
        caller.require(Scope.MODELS, _CLOSED)
        deploy_model(database, human_readable_id, serving, owner=caller.owner)
        if scale_model(database, human_readable_id):
            services.ring()
        services.note_deployments()
        return show_deployment(database, human_readable_id, caller)

    @router.get(path, responses=document_errors(DeploymentNotFound))
    def show(human_readable_id: str, caller: GivenCaller) -> DeploymentView:
        """The deployment, its replicas that live and the last few that ended."""
        return show_deployment(database, human_readable_id, caller)

    @router.delete(path, status_code=204, responses=document_errors(PermissionDenied, ModelNotFound))
    def undeploy(human_readable_id: str, caller: GivenCaller) -> None:
        """Keep the model warm no longer: its replicas finish their calls and end. Again: nothing."""
        caller.require(Scope.MODELS, _CLOSED)
        undeploy_model(database, human_readable_id)
        services.note_deployments()

    @router.get("/deployments/")
    def list_all(query: Annotated[DeploymentQuery, Query()], caller: GivenCaller) -> list[DeploymentView]:
        """Every deployment in the order of ids; `after` is the last id of the page before."""
        return list_deployments(database, caller, limit=query.limit, after=query.after)

    return router
