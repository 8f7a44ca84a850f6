"""The public API as an ASGI app."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse

from contract.access import DoorPolicy
from contract.errors import InferenceError, InvalidRequest, PermissionDenied, ServiceUnavailable, Unauthenticated
from contract.http_docs import install_docs
from contract.http_errors import RequestIdMiddleware, document_errors, install_error_handlers
from public_api.relay import Relay
from public_api.routes.deployments import deployment_routes
from public_api.routes.health import health_routes
from public_api.routes.models import model_routes
from public_api.routes.parameters import KEY_SCHEMES
from public_api.routes.tasks import task_routes

logger = logging.getLogger(__name__)


def create_app(*, private_url: str, service_token: str, policy: DoorPolicy) -> FastAPI:
    """The door before the private API at `private_url`, which is plain HTTP."""
    relay = Relay(private_url, service_token, policy)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        _warn_of_open_mode(policy)
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
    errors = document_errors(Unauthenticated, PermissionDenied, InvalidRequest, ServiceUnavailable, InferenceError)
    for router in (model_routes(relay), deployment_routes(relay), task_routes(relay)):
        app.include_router(router, dependencies=KEY_SCHEMES, responses=errors)
    return app


def _warn_of_open_mode(policy: DoorPolicy) -> None:
    if policy.requires_key:
        return
    logger.warning(
        "open mode: no key is asked for. Whoever reaches this port may submit tasks%s, and whoever knows the uid of a "
        "task that was submitted without a key may read, cancel and delete it; REQUIRE_API_KEY=1 asks for keys",
        " and register models" if policy.opens_models else "",
    )
