"""The private API as an ASGI app over given services."""

from fastapi import Depends, FastAPI

from contract.errors import PermissionDenied, Unauthenticated
from contract.http_docs import install_docs
from contract.http_errors import RequestIdMiddleware, document_errors, install_error_handlers
from private_api.routes.access import caller_resolver, consumer_resolver, token_checker
from private_api.routes.attempts import attempt_routes
from private_api.routes.deployments import deployment_routes
from private_api.routes.gateways import express_routes, gateway_routes
from private_api.routes.health import health_routes
from private_api.routes.models import model_routes
from private_api.routes.replicas import replica_routes
from private_api.routes.tasks import task_routes
from private_api.services import Services


def create_app(services: Services, *, service_token: str) -> FastAPI:
    """Every call needs `Authorization: Bearer <service_token>`, for which consumers may show a key instead.

    Except for health, docs and what Traefik asks.
    """
    app = FastAPI(title="InferenceServer, private API", docs_url=None, redoc_url=None)
    install_error_handlers(app)
    install_docs(app)
    app.add_middleware(RequestIdMiddleware)

    app.include_router(health_routes(services, service_token=service_token))
    app.include_router(express_routes(services))
    errors = document_errors(Unauthenticated, PermissionDenied)
    for_services = [Depends(token_checker(service_token))]
    for_doors = [*for_services, Depends(caller_resolver(services.database))]
    for router in (model_routes(services), deployment_routes(services), task_routes(services)):
        app.include_router(router, dependencies=for_doors, responses=errors)
    app.include_router(gateway_routes(services), dependencies=for_services, responses=document_errors(Unauthenticated))
    for_consumers = [Depends(consumer_resolver(services.database, service_token))]
    for router in (attempt_routes(services), replica_routes(services)):
        app.include_router(router, dependencies=for_consumers, responses=errors)
    return app
