"""The private API as an ASGI app over given services."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import Depends, FastAPI, Security
from fastapi.security import HTTPBearer

from contract.errors import (
    InferenceError,
    InvalidRequest,
    PermissionDenied,
    QuotaExceeded,
    RouteNotFound,
    Unauthenticated,
)
from kit.http_docs import install_docs, name_operation
from kit.http_errors import RequestIdMiddleware, document_errors, install_error_handlers
from private_api.database import REQUEST_THREADS
from private_api.routes.access import caller_resolver, consumer_resolver, token_checker
from private_api.routes.attempts import attempt_routes
from private_api.routes.deployments import deployment_routes
from private_api.routes.events import event_routes
from private_api.routes.files import file_routes
from private_api.routes.gateways import express_routes, gateway_routes
from private_api.routes.health import health_routes
from private_api.routes.image_lookups import image_lookup_routes
from private_api.routes.keys import key_routes
from private_api.routes.models import model_routes
from private_api.routes.overview import overview_routes
from private_api.routes.polls import poll_routes
from private_api.routes.replicas import replica_routes
from private_api.routes.tasks import task_routes
from private_api.services import Services

_TOKEN_SCHEME = Security(
    HTTPBearer(
        scheme_name="service_token",
        description="SERVICE_TOKEN. Below `/internal/tasks`, `/internal/replicas`, `/internal/claims`, "
        "`/internal/consumers` and `/internal/image-lookups` also a key with the scope `consume`.",
        auto_error=False,
    )
)
"""Puts the token into OpenAPI; the dependencies beside it check it."""
_TAGS = [
    {"name": "tasks", "description": "What doors relay about tasks."},
    {"name": "models", "description": "What doors relay about models."},
    {"name": "deployments", "description": "What doors relay about models that are kept warm."},
    {"name": "overview", "description": "What doors relay about the queue and the consumers."},
    {"name": "keys", "description": "What doors relay about callers and their keys."},
    {"name": "consumers", "description": "Claims, heartbeats, archives, logs and ends of attempts and replicas."},
    {"name": "gateways", "description": "The routing table, and what gateways report."},
    {"name": "health", "description": "Whether the process is alive, and ready."},
]


@asynccontextmanager
async def _with_its_threads(_app: FastAPI) -> AsyncIterator[None]:
    to_thread.current_default_thread_limiter().total_tokens = REQUEST_THREADS
    yield


def create_app(services: Services, *, service_token: str) -> FastAPI:
    """The app. Every call needs `Authorization: Bearer <service_token>`; a consumer may show a key instead.

    Health, docs and the routes for Traefik need neither.
    """
    app = FastAPI(
        title="InferenceServer, private API",
        description="For doors, gateways and consumers. Every error is JSON: `error` (its name) and `detail`.",
        openapi_tags=_TAGS,
        generate_unique_id_function=name_operation,
        docs_url=None,
        redoc_url=None,
        lifespan=_with_its_threads,
    )
    install_error_handlers(app, unknown=InferenceError, invalid=InvalidRequest, no_route=RouteNotFound)
    install_docs(app)
    app.add_middleware(RequestIdMiddleware)

    app.include_router(health_routes(services, service_token=service_token))
    app.include_router(express_routes(services), responses=document_errors(InferenceError))
    errors = document_errors(Unauthenticated, PermissionDenied, InvalidRequest, QuotaExceeded, InferenceError)
    for_services = [_TOKEN_SCHEME, Depends(token_checker(service_token))]
    for_doors = [*for_services, Depends(caller_resolver(services.database, services.count_request))]
    for build in (model_routes, deployment_routes, task_routes, file_routes, overview_routes, event_routes, key_routes):
        app.include_router(build(services), dependencies=for_doors, responses=errors)
    for router in (gateway_routes(services), poll_routes(services)):
        app.include_router(
            router,
            dependencies=for_services,
            responses=document_errors(Unauthenticated, InvalidRequest, InferenceError),
        )
    for_consumers = [_TOKEN_SCHEME, Depends(consumer_resolver(services.holders, service_token))]
    for router in (attempt_routes(services), replica_routes(services), image_lookup_routes(services)):
        app.include_router(router, dependencies=for_consumers, responses=errors)
    return app
