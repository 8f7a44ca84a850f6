"""`/api/models/`: registering, listing, changing and deleting models and their versions."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.concurrency import run_in_threadpool

from contract.access import Scope
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
)
from contract.model_versions import MAX_VERSION, ModelChange, ModelVersionView, VersionChange, VersionListQuery
from contract.queries import ModelRegistration
from contract.schemas import ListQuery, ModelView
from contract.zip_rules import check_archive, verify_contents
from kit.http_errors import document_errors
from kit.openapi import OPTIONAL_ZIP_BODY
from private_api import model_versions, models
from private_api.archives import Upload
from private_api.placement.image_lookups import add_findings
from private_api.routes.access import GivenCaller, require_changes
from private_api.routes.image_lookups import wait_for_findings
from private_api.routes.json_bodies import JsonRouter
from private_api.services import Services
from private_api.uploads import receive_optional_zip

_Version = Annotated[int, Path(ge=1, le=MAX_VERSION)]
_CLOSED = (
    "Models cannot be posted here: the operator has to set ALLOW_PUBLIC_POST_MODEL=1, or to give your key the scope "
    "models."
)
_FIXED = (
    "Models cannot be changed here: the operator has to set ALLOW_PUBLIC_POST_MODEL=1, or to give your key the scope "
    "models."
)


def model_routes(services: Services) -> APIRouter:
    router = JsonRouter(prefix="/api/models", tags=["models"])
    _add_catalogue(router, services)
    _add_changes(router, services)
    return router


def _add_catalogue(router: APIRouter, services: Services) -> None:
    def check_zip(upload: Upload) -> None:
        # The whole content, once and here: a model's zip is unpacked again on every host.
        directory = check_archive(
            upload.path,
            max_unpacked_bytes=services.sizes.max_unpacked_bytes,
            max_entries=services.sizes.max_entries,
            while_large=services.large_archives,
        )
        verify_contents(upload.path, directory)

    @router.post(
        "/",
        openapi_extra=dict(OPTIONAL_ZIP_BODY),
        responses=document_errors(
            PermissionDenied, ModelExists, InvalidRequest, InvalidArchive, TooLarge, QuotaExceeded, StorageFull
        ),
    )
    async def register_model(
        request: Request, query: Annotated[ModelRegistration, Query()], caller: GivenCaller
    ) -> ModelView:
        """Register a model, or with `replace=true` a new version of it."""
        caller.require(Scope.MODELS, _CLOSED)
        await run_in_threadpool(
            models.check_registration,
            services.database,
            query,
            caller,
            allow_process=services.allow_process_models,
            allowed_images=services.allowed_images,
            runtimes=services.model_runtimes,
        )
        with services.upload_place(caller):
            async with receive_optional_zip(request, services.store, max_bytes=services.max_upload_bytes) as upload:
                if upload is not None:
                    await run_in_threadpool(check_zip, upload)
                view = await run_in_threadpool(
                    models.register_model, services.database, services.store, query, upload, caller
                )
        return await wait_for_findings(services, view, caller)

    @router.get("/")
    def list_models(query: Annotated[ListQuery, Query()], caller: GivenCaller) -> list[ModelView]:
        """The catalogue in the order of ids; `after` is the last id of the page before."""
        page = models.list_models(services.database, caller, limit=query.limit, after=query.after)
        return add_findings(services.database, page, caller)

    @router.get("/{human_readable_id}", responses=document_errors(ModelNotFound))
    def show_model(human_readable_id: str, caller: GivenCaller) -> ModelView:
        """One model in its default version, or as `<id>@<version>` in this one."""
        view = models.show_model(services.database, human_readable_id, caller)
        return add_findings(services.database, [view], caller)[0]

    @router.get("/{human_readable_id}/versions", responses=document_errors(ModelNotFound))
    def list_versions(human_readable_id: str, query: Annotated[VersionListQuery, Query()]) -> list[ModelVersionView]:
        """The model's versions, newest first; `after` is the last version of the page before."""
        return model_versions.list_versions(services.database, human_readable_id, query)


def _add_changes(router: APIRouter, services: Services) -> None:
    database = services.database

    @router.patch(
        "/{human_readable_id}",
        responses=document_errors(PermissionDenied, ModelNotFound, ModelRetired, InvalidRequest),
    )
    def change_model(human_readable_id: str, change: ModelChange, caller: GivenCaller) -> ModelView:
        """Choose the default version, describe it, retire the model or bring it back, share it or give it away."""
        require_changes(caller, _FIXED)
        view = model_versions.change_model(database, human_readable_id, change, caller)
        services.note_deployments()
        return add_findings(database, [view], caller)[0]

    @router.patch(
        "/{human_readable_id}/versions/{version}",
        responses=document_errors(PermissionDenied, ModelNotFound, ModelInUse),
    )
    def change_version(
        human_readable_id: str, version: _Version, change: VersionChange, caller: GivenCaller
    ) -> ModelVersionView:
        """Describe a version, retire it or bring it back."""
        require_changes(caller, _FIXED)
        return model_versions.change_version(database, human_readable_id, version, change, caller)

    in_use = document_errors(PermissionDenied, ModelNotFound, ModelInUse)

    @router.delete("/{human_readable_id}", status_code=204, responses=in_use)
    def delete_model(human_readable_id: str, caller: GivenCaller) -> None:
        """Delete the model with all its versions, unless something uses it. Deleting again is fine."""
        require_changes(caller, _FIXED)
        model_versions.delete_model(database, human_readable_id, caller)
        services.sweep()

    @router.delete("/{human_readable_id}/versions/{version}", status_code=204, responses=in_use)
    def delete_version(human_readable_id: str, version: _Version, caller: GivenCaller) -> None:
        """Delete a version, unless it is the default or something uses it. Deleting again is fine."""
        require_changes(caller, _FIXED)
        model_versions.delete_version(database, human_readable_id, version, caller)
        services.sweep()
