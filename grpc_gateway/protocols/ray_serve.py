"""Ray Serve's own two calls, answered from the routing table in Ray's words."""

from grpc_gateway.calls import Call
from grpc_gateway.generated.ray_serve_pb2 import HealthzResponse, ListApplicationsResponse
from grpc_gateway.handlers import LocalHandlers
from grpc_gateway.keys import Access
from grpc_gateway.refusals import draining, not_populated
from grpc_gateway.table import Table

SERVICE = "ray.serve.RayServeAPIService"


class RayServe:
    """Answers `ListApplications` and `Healthz`."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def install(self, handlers: LocalHandlers) -> None:
        """Answer both methods: `Healthz` without a key, while the list tells names."""
        handlers.add_unary(f"/{SERVICE}/ListApplications", self._list)
        handlers.add_unary(f"/{SERVICE}/Healthz", self._healthz, Access.OPEN)

    async def _list(self, call: Call, _request: bytes) -> bytes:
        self._check()
        shown = [call.deployment] if call.deployment else self._table.deployments.values()
        names = [name for deployment in shown for name in deployment.route.applications]
        return ListApplicationsResponse(application_names=names).SerializeToString()

    async def _healthz(self, _call: Call, _request: bytes) -> bytes:
        self._check()
        return HealthzResponse(message="success").SerializeToString()

    def _check(self) -> None:
        if self._table.is_draining:
            raise draining()
        if not self._table.deployments:
            raise not_populated()
