"""The public API as an ASGI app."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse

from contract.errors import InferenceError, InvalidRequest, ServiceUnavailable
from contract.http_docs import install_docs
from contract.http_errors import RequestIdMiddleware, document_errors, install_error_handlers
from public_api.relay import Relay
from public_api.routes.health import health_routes
from public_api.routes.models import model_routes
from public_api.routes.tasks import task_routes


def create_app(*, private_url: str, service_token: str, allow_post_model: bool) -> FastAPI:
    """The door before the private API at `private_url`, which is plain HTTP.

    `allow_post_model` lets anybody register models.
    """
    relay = Relay(private_url, service_token)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await relay.close()

    app = FastAPI(
        title="InferenceServer",
        description="Post a zip to a model, fetch a zip. Every error is JSON: `error` (its name) and `detail`.",
        docs_url=None,
        redoc_url=None,
        # A redirect would make clients send a large body twice.
        redirect_slashes=False,
        lifespan=lifespan,
    )
    install_error_handlers(app)
    install_docs(app)
    app.add_middleware(RequestIdMiddleware)

    @app.get("/", include_in_schema=False)
    async def show_docs(request: Request) -> RedirectResponse:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")

    app.include_router(health_routes(relay))
    for router in (model_routes(relay, allow_post_model), task_routes(relay, allow_post_model)):
        app.include_router(router, responses=document_errors(InvalidRequest, ServiceUnavailable, InferenceError))
    return app
