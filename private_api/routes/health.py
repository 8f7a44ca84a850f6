"""`/healthz` and `/readyz`: whether the process is alive, and whether it is ready."""

from fastapi import APIRouter, Request

from contract.broker import BrokerUnavailable
from contract.errors import ServiceUnavailable
from kit.http_errors import document_errors
from private_api.routes.access import carries_token
from private_api.routes.json_bodies import JsonRouter
from private_api.services import Services
from private_api.soundness import count_damaged


def health_routes(services: Services, *, service_token: str) -> APIRouter:
    router = JsonRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @router.get("/readyz", responses=document_errors(ServiceUnavailable))
    def readyz(request: Request) -> dict[str, str]:
        """Whether the database answers. A broker that is away and damaged files are reported, but not fatal.

        A caller that sends a service token also learns whether it is the right one.
        """
        if "authorization" in request.headers and not carries_token(request, service_token):
            raise ServiceUnavailable(
                "the private API refuses the SERVICE_TOKEN of this service: give both the same one and restart them"
            )
        services.database.check()
        parts = {"status": "ready", "database": "ready", "broker": "ready"}
        try:
            services.broker.check()
        except BrokerUnavailable as error:
            parts["broker"] = f"away: {error}"
        if damaged := count_damaged(services.database):
            parts["archives"] = f"{damaged} damaged; the log of the private API names them"
        return parts

    return router
