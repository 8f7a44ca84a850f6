"""The private API as an ASGI app over given services."""

import hmac

from fastapi import Depends, FastAPI, Request

from contract.errors import Unauthenticated
from contract.http_docs import install_docs
from contract.http_errors import RequestIdMiddleware, document_errors, install_error_handlers
from private_api.routes.access import caller_resolver
from private_api.routes.attempts import attempt_routes
from private_api.routes.deployments import deployment_routes
from private_api.routes.gateways import express_routes, gateway_routes
from private_api.routes.health import health_routes
from private_api.routes.models import model_routes
from private_api.routes.replicas import replica_routes
from private_api.routes.tasks import task_routes
from private_api.services import Services


def create_app(services: Services, *, service_token: str) -> FastAPI:
    """Every call except health, docs and what Traefik asks needs `Authorization: Bearer <service_token>`."""
    app = FastAPI(title="InferenceServer, private API", docs_url=None, redoc_url=None)
    install_error_handlers(app)
    install_docs(app)
    app.add_middleware(RequestIdMiddleware)

    def check_token(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {service_token}".encode()):
            raise Unauthenticated("the private API wants the service token: Authorization: Bearer <SERVICE_TOKEN>")

    app.include_router(health_routes(services))
    app.include_router(express_routes(services))
    for_doors = [Depends(check_token), Depends(caller_resolver(services.database))]
    for router in (model_routes(services), deployment_routes(services), task_routes(services)):
        app.include_router(router, dependencies=for_doors, responses=document_errors(Unauthenticated))
    for router in (attempt_routes(services), replica_routes(services), gateway_routes(services)):
        app.include_router(router, dependencies=[Depends(check_token)], responses=document_errors(Unauthenticated))
    return app
