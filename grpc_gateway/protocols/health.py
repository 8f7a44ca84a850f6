"""grpc.health.v1, answered from the routing table: the gateway as a whole, and each deployment by any of its names."""

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from grpc_gateway.calls import Call
from grpc_gateway.handlers import LocalHandlers
from grpc_gateway.keys import Access
from grpc_gateway.protocols.messages import parse
from grpc_gateway.refusals import shutting_down
from grpc_gateway.statuses import StatusError
from grpc_gateway.table import Table

SERVICE = "grpc.health.v1.Health"
_SERVING, _NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """Answers `Check` and `Watch`; the name `""` asks about the gateway itself."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def install(self, handlers: LocalHandlers) -> None:
        """Answer both methods; load balancers ask without a key."""
        handlers.add_unary(f"/{SERVICE}/Check", self._check, Access.OPEN)
        handlers.add_stream(f"/{SERVICE}/Watch", self._watch, Access.OPEN)

    async def _check(self, call: Call, request: bytes) -> bytes:
        status = self._status(call, parse(HealthCheckRequest, request).service)
        if status == _SERVICE_UNKNOWN:
            raise StatusError(grpc.StatusCode.NOT_FOUND, "unknown service")
        return HealthCheckResponse(status=status).SerializeToString()

    async def _watch(self, call: Call) -> None:
        name = parse(HealthCheckRequest, await call.read() or b"").service
        last = None
        while True:
            change = self._table.next_change()
            status = self._status(call, name)
            if status != last:
                await call.write(HealthCheckResponse(status=status).SerializeToString())
                last = status
            await change.wait()
            if self._table.is_closed:
                raise shutting_down()

    def _status(self, call: Call, name: str) -> int:
        if not self._table.is_populated or self._table.is_draining:
            return _NOT_SERVING
        if not name:
            return _SERVING if call.deployment is None or call.deployment.is_ready else _NOT_SERVING
        named = self._table.by_name.get(name, [])
        if call.deployment is not None:
            named = [deployment for deployment in named if deployment is call.deployment]
        if not named:
            return _SERVICE_UNKNOWN
        return _SERVING if any(deployment.is_ready for deployment in named) else _NOT_SERVING
