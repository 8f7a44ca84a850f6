"""`/healthz` and `/readyz`: whether the process is alive, and whether the server is ready."""

from fastapi import APIRouter, Request, Response

from contract.errors import ServiceUnavailable
from kit.http_errors import document_errors
from public_api.relay import Relay


def health_routes(relay: Relay) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @router.get("/readyz", response_model=dict[str, str], responses=document_errors(ServiceUnavailable))
    async def readyz(request: Request) -> Response:
        """The private API is ready; otherwise 503 says which part is not."""
        return relay.forward(request, "/readyz", patience_s=5)

    return router
