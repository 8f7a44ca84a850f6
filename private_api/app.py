"""The private API as an ASGI app over given services."""

from fastapi import Depends, FastAPI

from contract.errors import PermissionDenied, Unauthenticated
from contract.http_docs import install_docs
from contract.http_errors import RequestIdMiddleware, document_errors, install_error_handlers
from private_api.routes.access import caller_resolver, consumer_resolver, token_checker
from private_api.routes.attempts import attempt_routes
from private_api.routes.health import health_routes
from private_api.routes.models import model_routes
from private_api.routes.tasks import task_routes
from private_api.services import Services


def create_app(services: Services, *, service_token: str) -> FastAPI:
    """Every call except health and docs needs `Authorization: Bearer <service_token>`; consumers may show a key."""
    app = FastAPI(title="InferenceServer, private API", docs_url=None, redoc_url=None)
    install_error_handlers(app)
    install_docs(app)
    app.add_middleware(RequestIdMiddleware)

    app.include_router(health_routes(services, service_token=service_token))
    errors = document_errors(Unauthenticated, PermissionDenied)
    for_doors = [Depends(token_checker(service_token)), Depends(caller_resolver(services.database))]
    for router in (model_routes(services), task_routes(services)):
        app.include_router(router, dependencies=for_doors, responses=errors)
    for_consumers = [Depends(consumer_resolver(services.database, service_token))]
    app.include_router(attempt_routes(services), dependencies=for_consumers, responses=errors)
    return app
