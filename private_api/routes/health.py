"""`/healthz` and `/readyz`: alive, and ready with what is not."""

from fastapi import APIRouter, Request

from contract.broker import BrokerUnavailable
from contract.errors import ServiceUnavailable
from contract.http_errors import document_errors
from private_api.routes.access import carries_token
from private_api.services import Services


def health_routes(services: Services, *, service_token: str) -> APIRouter:
    """The routes over `services`."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @router.get("/readyz", responses=document_errors(ServiceUnavailable))
    def readyz(request: Request) -> dict[str, str]:
        """The database answers. A broker that is away only slows tasks down, so it is told but not fatal.

        Who asks with a service token also learns whether it is the right one.
        """
        if "authorization" in request.headers and not carries_token(request, service_token):
            raise ServiceUnavailable(
                "the private API refuses the SERVICE_TOKEN of this service: give both the same one and restart them"
            )
        services.database.check()
        try:
            services.broker.check()
        except BrokerUnavailable as error:
            return {"status": "ready", "database": "ready", "broker": f"away: {error}"}
        return {"status": "ready", "database": "ready", "broker": "ready"}

    return router
