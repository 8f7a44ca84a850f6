"""Ray Serve's own two calls, answered from the routing table in Ray's words."""

from contract.wire import text_field
from grpc_gateway.calls import Call
from grpc_gateway.handlers import LocalHandlers
from grpc_gateway.table import Table
from grpc_gateway.texts import draining, not_populated

SERVICE = "ray.serve.RayServeAPIService"


class RayServe:
    """Both methods."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def install(self, handlers: LocalHandlers) -> None:
        """`Healthz` is asked without a key; the list tells names."""
        handlers.add_unary(f"/{SERVICE}/ListApplications", self._list)
        handlers.add_unary(f"/{SERVICE}/Healthz", self._healthz, is_open=True)

    async def _list(self, call: Call, _request: bytes) -> bytes:
        self._check()
        shown = [call.deployment] if call.deployment else self._table.deployments.values()
        return b"".join(text_field(1, deployment.route.application) for deployment in shown)

    async def _healthz(self, _call: Call, _request: bytes) -> bytes:
        self._check()
        return text_field(1, "success")

    def _check(self) -> None:
        if self._table.is_draining:
            raise draining()
        if not self._table.deployments:
            raise not_populated()
