"""`/api/models/<id>/deployment` and `/api/deployments/`: what operators do with deployments."""

from typing import Annotated

from fastapi import APIRouter, Query

from contract.access import Scope
from contract.deployments import DeploymentQuery, DeploymentView
from contract.errors import DeploymentNotFound, ModelNotFound, ModelRetired, NameTaken, PermissionDenied
from contract.serving import ServingSpec
from kit.http_errors import document_errors
from private_api.deployments.deploy import deploy_model, undeploy_model
from private_api.deployments.read import list_deployments, show_deployment
from private_api.placement.scale import scale_model
from private_api.routes.access import GivenCaller, require_changes
from private_api.routes.json_bodies import JsonRouter
from private_api.services import Services

_CLOSED = (
    "Models cannot be deployed here: the operator has to set ALLOW_PUBLIC_POST_MODEL=1, or to give your key the scope "
    "models."
)


def deployment_routes(services: Services) -> APIRouter:
    router = JsonRouter(prefix="/api", tags=["deployments"])
    database = services.database
    path = "/models/{human_readable_id}/deployment"

    @router.post(path, responses=document_errors(PermissionDenied, ModelNotFound, ModelRetired, NameTaken))
    def deploy(human_readable_id: str, serving: ServingSpec, caller: GivenCaller) -> DeploymentView:
        """Keep the model's default version warm, or that of `<id>@<version>`.

        Again: replaces version and description, and replicas that they concern.
        """
        caller.require(Scope.MODELS, _CLOSED)
        name = deploy_model(database, human_readable_id, serving, caller)
        if scale_model(database, name):
            services.ring()
        services.note_deployments()
        return show_deployment(database, name, caller)

    @router.get(path, name="show_deployment", responses=document_errors(DeploymentNotFound))
    def show(human_readable_id: str, caller: GivenCaller) -> DeploymentView:
        """The deployment, its replicas that live and the last few that ended."""
        return show_deployment(database, human_readable_id, caller)

    @router.delete(path, status_code=204, responses=document_errors(PermissionDenied, ModelNotFound))
    def undeploy(human_readable_id: str, caller: GivenCaller) -> None:
        """Keep the model warm no longer: its replicas finish their calls and end. Again: nothing."""
        require_changes(caller, _CLOSED)
        undeploy_model(database, human_readable_id, caller)
        services.note_deployments()

    @router.get("/deployments/", name="list_deployments")
    def list_all(query: Annotated[DeploymentQuery, Query()], caller: GivenCaller) -> list[DeploymentView]:
        """Every deployment in the order of ids; `after` is the last id of the page before."""
        return list_deployments(database, caller, limit=query.limit, after=query.after)

    return router
