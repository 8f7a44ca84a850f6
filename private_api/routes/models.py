"""`/api/models/`: registering and listing models."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from contract.access import Scope
from contract.errors import InvalidArchive, ModelExists, ModelNotFound, PermissionDenied, StorageFull, TooLarge
from contract.http_errors import ZIP_BODY, document_errors
from contract.schemas import ListQuery, ModelRegistration, ModelView
from contract.zip_rules import check_archive, verify_contents
from private_api import models
from private_api.archives import Upload
from private_api.routes.access import GivenCaller
from private_api.services import Services
from private_api.uploads import receive_optional_zip

_CLOSED = (
    "Models cannot be posted here: the operator has to set ALLOW_PUBLIC_POST_MODEL=1, or to give your key the scope "
    "models."
)


def model_routes(services: Services) -> APIRouter:
    """The routes over `services`."""
    router = APIRouter(prefix="/api/models", tags=["models"])

    def check_zip(upload: Upload) -> None:
        # All of it, once, here: a model's zip is unpacked again on every host.
        directory = check_archive(upload.path, max_unpacked_bytes=services.sizes.max_unpacked_bytes)
        verify_contents(upload.path, directory)

    @router.post(
        "/",
        openapi_extra=dict(ZIP_BODY),
        responses=document_errors(PermissionDenied, ModelExists, InvalidArchive, TooLarge, StorageFull),
    )
    async def register_model(
        request: Request, query: Annotated[ModelRegistration, Query()], caller: GivenCaller
    ) -> ModelView:
        """Register a model, or with `replace=true` a new version of it."""
        caller.require(Scope.MODELS, _CLOSED)
        await run_in_threadpool(
            models.check_registration, services.database, query, allow_process=services.allow_process_models
        )
        async with receive_optional_zip(request, services.store, max_bytes=services.max_upload_bytes) as upload:
            if upload is not None:
                await run_in_threadpool(check_zip, upload)
            return await run_in_threadpool(models.register_model, services.database, services.store, query, upload)

    @router.get("/")
    def list_models(query: Annotated[ListQuery, Query()]) -> list[ModelView]:
        """The catalogue in the order of ids; `after` is the last id of the page before."""
        return models.list_models(services.database, limit=query.limit, after=query.after)

    @router.get("/{human_readable_id}", responses=document_errors(ModelNotFound))
    def show_model(human_readable_id: str) -> ModelView:
        """One model in its newest version."""
        return models.show_model(services.database, human_readable_id)

    return router
