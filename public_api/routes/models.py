"""`/api/models/`: registering and listing models."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from contract.errors import InvalidArchive, ModelExists, ModelNotFound, PermissionDenied, StorageFull, TooLarge
from contract.http_errors import ZIP_BODY, document_errors
from contract.schemas import ListQuery, ModelRegistration, ModelView
from public_api.relay import UPLOAD_PATIENCE_S, Relay
from public_api.routes.parameters import ModelIdPart

REGISTRATION_ERRORS = (PermissionDenied, ModelExists, InvalidArchive, TooLarge, StorageFull)


def forward_registration(relay: Relay, request: Request, query: ModelRegistration) -> Response:
    """Register the model that `request` carries."""
    return relay.forward(request, "/api/models/", query=query, with_body=True, patience_s=UPLOAD_PATIENCE_S)


def model_routes(relay: Relay) -> APIRouter:
    """The routes over `relay`."""
    router = APIRouter(prefix="/api/models", tags=["models"])

    @router.post("", include_in_schema=False)
    @router.post(
        "/",
        response_model=ModelView,
        openapi_extra=dict(ZIP_BODY),
        responses=document_errors(*REGISTRATION_ERRORS),
    )
    async def register_model(request: Request, query: Annotated[ModelRegistration, Query()]) -> Response:
        """Register a model, or with `replace=true` a new version of it. `model_available=true` needs the zip."""
        return forward_registration(relay, request, query)

    @router.get("", include_in_schema=False)
    @router.get("/", response_model=list[ModelView])
    async def list_models(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
        """The catalogue in the order of ids; `after` is the last id of the page before."""
        return relay.forward(request, "/api/models/", query=query)

    @router.get("/{human_readable_id}", response_model=ModelView, responses=document_errors(ModelNotFound))
    async def show_model(request: Request, human_readable_id: ModelIdPart) -> Response:
        """One model in its newest version."""
        return relay.forward(request, f"/api/models/{human_readable_id}")

    return router
