"""grpc.health.v1, answered from the routing table: the gateway as a whole, and each deployment by any of its names."""

import grpc

from contract.wire import peek_text, varint_field
from grpc_gateway.calls import Call
from grpc_gateway.handlers import LocalHandlers
from grpc_gateway.statuses import Refusal
from grpc_gateway.table import Table
from grpc_gateway.texts import shutting_down

SERVICE = "grpc.health.v1.Health"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


class Health:
    """Both methods. `""` asks for the gateway itself."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def install(self, handlers: LocalHandlers) -> None:
        """Load balancers ask without a key."""
        handlers.add_unary(f"/{SERVICE}/Check", self._check, is_open=True)
        handlers.add_stream(f"/{SERVICE}/Watch", self._watch, is_open=True)

    async def _check(self, call: Call, request: bytes) -> bytes:
        status = self._status(call, peek_text(request, (1,)))
        if status == SERVICE_UNKNOWN:
            raise Refusal(grpc.StatusCode.NOT_FOUND, "unknown service")
        return varint_field(1, status)

    async def _watch(self, call: Call) -> None:
        name = peek_text(await call.read() or b"", (1,))
        told = None
        while True:
            change = self._table.next_change()
            status = self._status(call, name)
            if status != told:
                await call.write(varint_field(1, status))
                told = status
            await change.wait()
            if self._table.is_closed:
                raise shutting_down()

    def _status(self, call: Call, name: str) -> int:
        if not self._table.is_populated or self._table.is_draining:
            return NOT_SERVING
        if not name:
            return SERVING if call.deployment is None or call.deployment.is_ready else NOT_SERVING
        named = self._table.by_name.get(name, [])
        if call.deployment is not None:
            named = [deployment for deployment in named if deployment is call.deployment]
        if not named:
            return SERVICE_UNKNOWN
        return SERVING if any(deployment.is_ready for deployment in named) else NOT_SERVING
