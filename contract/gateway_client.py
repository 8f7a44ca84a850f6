"""The private API as gateways call it, from one event loop; its errors are raised as classes of `contract.errors`."""

from typing import Any

import httpx

from contract.access import CALLER_KEY_HEADER
from contract.deployments import CallerView, GatewayReport, RoutingTable
from contract.private_client import TIMEOUT, error_of, unreachable

TABLE_WAIT_S = 20.0
"""How long the private API may hold a request for a table that has not changed."""


class GatewayClient:
    """One gateway process's client of the private API. Calls raise `ServiceUnavailable` and what they document."""

    def __init__(self, url: str, service_token: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {service_token}"}, timeout=TIMEOUT, trust_env=False
        )

    async def table(self, etag: str | None) -> RoutingTable:
        """The routing table: at once if it differs from `etag`'s, else when it changes or after `TABLE_WAIT_S`."""
        parameters = {"wait": str(TABLE_WAIT_S)} | ({"etag": etag} if etag else {})
        return RoutingTable.model_validate(await self._call("GET", "/internal/gateways/table", params=parameters))

    async def report(self, report: GatewayReport) -> None:
        """Report what this process does. After some seconds of silence it no longer keeps a replica from ending."""
        await self._call("POST", "/internal/gateways/reports", json=report.model_dump(mode="json"))

    async def leave(self, gateway: str) -> None:
        """Report that this process is gone and holds nothing."""
        await self._call("DELETE", f"/internal/gateways/reports/{gateway}")

    async def demand(self, human_readable_id: str) -> None:
        """Ask for a replica of this deployment: a call waits. Raises `DeploymentNotFound`."""
        await self._call("POST", f"/internal/gateways/demands/{human_readable_id}")

    async def check_key(self, key: str) -> CallerView:
        """The caller that a key stands for. Raises `Unauthenticated`."""
        return CallerView.model_validate(
            await self._call("POST", "/internal/gateways/callers", headers={CALLER_KEY_HEADER: key})
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = await self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise unreachable(error) from error
        if response.is_success:
            return response.json()
        raise error_of(response)
