"""`/api/models/`: registering, listing, changing and deleting models and their versions."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from contract.errors import (
    InvalidArchive,
    InvalidRequest,
    ModelExists,
    ModelInUse,
    ModelNotFound,
    ModelRetired,
    PermissionDenied,
    QuotaExceeded,
    StorageFull,
    TooLarge,
    TooSlow,
)
from contract.model_versions import ModelChange, ModelVersionView, VersionChange, VersionListQuery
from contract.queries import ModelRegistration
from contract.schemas import ListQuery, ModelView
from kit.http_errors import document_errors
from kit.openapi import OPTIONAL_ZIP_BODY
from public_api.relay import UPLOAD_PATIENCE_S, Relay
from public_api.routes.examples import EXAMPLE_MODEL, EXAMPLE_VERSION, answer_example
from public_api.routes.parameters import ModelIdPart, ModelReferencePart, VersionPart

UPLOAD_ERRORS = (PermissionDenied, InvalidRequest, InvalidArchive, TooLarge, TooSlow, QuotaExceeded, StorageFull)


def forward_registration(relay: Relay, request: Request, query: ModelRegistration) -> Response:
    """Register the model that `request` carries."""
    return relay.forward(request, "/api/models/", query=query, with_body=True, patience_s=UPLOAD_PATIENCE_S)


def _describe_change(change: type[ModelChange | VersionChange], **example: Any) -> dict[str, Any]:
    """OpenAPI of a body that is relayed as it comes."""
    content = {"application/json": {"schema": change.model_json_schema(), "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def model_routes(relay: Relay) -> APIRouter:
    router = APIRouter(prefix="/api/models", tags=["models"])
    _add_catalogue(router, relay)
    _add_changes(router, relay)
    return router


def _add_catalogue(router: APIRouter, relay: Relay) -> None:
    @router.post("", include_in_schema=False)
    @router.post(
        "/",
        response_model=ModelView,
        openapi_extra=dict(OPTIONAL_ZIP_BODY),
        responses=answer_example(EXAMPLE_MODEL) | document_errors(ModelExists, *UPLOAD_ERRORS),
    )
    async def register_model(request: Request, query: Annotated[ModelRegistration, Query()]) -> Response:
        """Register a model, or with `replace=true` a new version of it, which becomes the default.

        The zip is the static content of `/model`: it comes with `model_available=true`, and not without.
        """
        return forward_registration(relay, request, query)

    @router.get("", include_in_schema=False)
    @router.get("/", response_model=list[ModelView], responses=answer_example([EXAMPLE_MODEL]))
    async def list_models(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
        """The models in the order of ids, each in its default version; `after` is the last id of the page before."""
        return relay.forward(request, "/api/models/", query=query)

    @router.get(
        "/{human_readable_id}",
        response_model=ModelView,
        responses=answer_example(EXAMPLE_MODEL) | document_errors(ModelNotFound),
    )
    async def show_model(request: Request, human_readable_id: ModelReferencePart) -> Response:
        """One model in its default version, or as `<name>@<version>` in this one."""
        return relay.forward(request, f"/api/models/{human_readable_id}")

    @router.get(
        "/{human_readable_id}/versions",
        response_model=list[ModelVersionView],
        responses=answer_example([EXAMPLE_VERSION]) | document_errors(ModelNotFound),
    )
    async def list_versions(
        request: Request, human_readable_id: ModelIdPart, query: Annotated[VersionListQuery, Query()]
    ) -> Response:
        """The model's versions, newest first; `after` is the last version of the page before."""
        return relay.forward(request, f"/api/models/{human_readable_id}/versions", query=query)


def _add_changes(router: APIRouter, relay: Relay) -> None:
    in_use = document_errors(PermissionDenied, ModelNotFound, ModelInUse)

    @router.patch(
        "/{human_readable_id}",
        response_model=ModelView,
        openapi_extra=_describe_change(ModelChange, default_version=2),
        responses=answer_example(EXAMPLE_MODEL)
        | document_errors(PermissionDenied, ModelNotFound, ModelRetired, TooLarge),
    )
    async def change_model(request: Request, human_readable_id: ModelIdPart) -> Response:
        """Choose the default version, describe it, retire the model or bring it back. Needs the scope `models`.

        A retired model takes no new tasks; those that it has go on. A deployment keeps its version.
        """
        return relay.forward(request, f"/api/models/{human_readable_id}", with_body=True)

    @router.patch(
        "/{human_readable_id}/versions/{version}",
        response_model=ModelVersionView,
        openapi_extra=_describe_change(VersionChange, retired=True),
        responses=answer_example(EXAMPLE_VERSION) | in_use | document_errors(TooLarge),
    )
    async def change_version(request: Request, human_readable_id: ModelIdPart, version: VersionPart) -> Response:
        """Describe a version, retire it or bring it back. Needs the scope `models`. The default cannot be retired."""
        return relay.forward(request, f"/api/models/{human_readable_id}/versions/{version}", with_body=True)

    @router.delete("/{human_readable_id}", status_code=204, response_class=Response, responses=in_use)
    async def delete_model(request: Request, human_readable_id: ModelIdPart) -> Response:
        """Delete the model with all its versions, unless a task that has not ended or a deployment uses it.

        Its ended tasks stay as they are. Needs the scope `models`. Deleting again is fine.
        """
        return relay.forward(request, f"/api/models/{human_readable_id}")

    @router.delete(
        "/{human_readable_id}/versions/{version}", status_code=204, response_class=Response, responses=in_use
    )
    async def delete_version(request: Request, human_readable_id: ModelIdPart, version: VersionPart) -> Response:
        """Delete a version, unless it is the default, or a task that has not ended or a deployment uses it.

        Its ended tasks stay as they are. Needs the scope `models`. Deleting again is fine.
        """
        return relay.forward(request, f"/api/models/{human_readable_id}/versions/{version}")
