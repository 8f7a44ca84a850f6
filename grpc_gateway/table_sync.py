"""Keeps the routing table in step with the private API, and reports there what this process does.

While the private API cannot be reached the last table stays in use.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from contract.deployments import GatewayReport, RoutingTable
from contract.errors import DeploymentNotFound, InferenceError, ServiceUnavailable
from contract.gateway_client import GatewayClient
from grpc_gateway.background import Background
from grpc_gateway.table import Table

logger = logging.getLogger(__name__)

REPORT_S = 1.0
_RETRY_S = (0.2, 0.5, 1.0, 2.0)
_DEMAND_S = 2.0
"""How often the private API is asked again for a replica that calls wait for."""
_LEAVE_S = 2.0
_REFRESH_S = 2.0
"""How long a call with an unknown name waits for the newest table."""
_FRESH_FOR_S = 0.2


class Demands:
    """Asks the private API for replicas, at most once in `_DEMAND_S` per deployment. It belongs to one event loop."""

    def __init__(self, client: GatewayClient) -> None:
        self._client = client
        self._asked: dict[str, float] = {}
        self._background = Background()

    def ask(self, deployment: str) -> None:
        """Ask for a replica of this deployment, for a call that waits."""
        now = asyncio.get_running_loop().time()
        if now - self._asked.get(deployment, -_DEMAND_S) < _DEMAND_S:
            return
        self._asked = {name: at for name, at in self._asked.items() if now - at < _DEMAND_S} | {deployment: now}
        self._background.start(self._send(deployment), f"asking for a replica of {deployment}")

    async def _send(self, deployment: str) -> None:
        try:
            await self._client.demand(deployment)
        except DeploymentNotFound:
            # Just removed: the next table says so.
            logger.debug("%s is no longer deployed", deployment)
        except InferenceError as error:
            logger.warning("%s cannot be asked for: %s", deployment, error.detail)
            self._asked.pop(deployment, None)


class TableSync:
    """Two loops: one takes over the table, the other reports."""

    def __init__(self, client: GatewayClient, table: Table, name: str) -> None:
        self._client = client
        self._table = table
        self._name = name
        self._reporting = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at: float | None = None

    async def refresh(self) -> None:
        """Take over the newest table now: a deployment may be younger than the last one.

        Calls that ask at the same time share one request, and for a moment its answer. While the private API is away
        the last table stays in use.
        """
        now = asyncio.get_running_loop().time()
        if self._refreshing is None:
            if self._refreshed_at is not None and now - self._refreshed_at < _FRESH_FOR_S:
                return
            self._refreshing = asyncio.create_task(self._fetch())
        # Shielded: it is not to be cancelled with one of the calls that wait.
        await asyncio.shield(self._refreshing)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(_REFRESH_S):
                self._take_over(await self._client.table(None))
        except (InferenceError, TimeoutError) as error:
            logger.warning("the routing table could not be refreshed: %s", error)
        finally:
            self._refreshed_at = asyncio.get_running_loop().time()
            self._refreshing = None

    def start(self) -> None:
        """Start both loops; once per object."""
        for loop in (self._follow, self._report):
            self._tasks.append(asyncio.create_task(_repeat(loop)))

    async def stop(self) -> None:
        """Stop, and report that this process is gone."""
        try:
            # A report that is under way must not arrive after the farewell.
            async with asyncio.timeout(_LEAVE_S), self._reporting:
                await self._client.leave(self._name)
        except (InferenceError, TimeoutError) as error:
            # Silence says the same, a few seconds later.
            logger.info("the private API does not hear that this gateway leaves: %s", error)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def report(self) -> GatewayReport:
        """What this process is doing now."""
        now = asyncio.get_running_loop().time()
        everyone = self._table.deployments.values()
        return GatewayReport(
            gateway=self._name,
            deployments={deployment.id: deployment.load(now) for deployment in everyone},
            replicas=self._table.open_calls(),
        )

    async def _follow(self) -> None:
        self._take_over(await self._client.table(self._table.etag))

    def _take_over(self, table: RoutingTable) -> None:
        if table.etag != self._table.etag:
            self._table.apply(table)
            logger.info("routing table %s: %d deployments", table.etag[:12], len(table.routes))

    async def _report(self) -> None:
        change = self._table.next_change()
        async with self._reporting:
            await self._client.report(self.report())
        try:
            # A replica that left the table may end only once every gateway has reported that it holds no call.
            async with asyncio.timeout(REPORT_S):
                await change.wait()
        except TimeoutError:
            pass


async def _repeat(step: Callable[[], Awaitable[None]]) -> None:
    """Repeat `step` for ever. After a failure it pauses; an outage is logged once."""
    failures = 0
    while True:
        try:
            await step()
            if failures:
                logger.info("the private API answers again")
            failures = 0
        except ServiceUnavailable as error:
            if not failures:
                logger.warning("%s; the last routing table stays in use", error.detail)
            await asyncio.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
            failures += 1
        except Exception:
            logger.exception("a step failed; it is repeated in %s s", _RETRY_S[-1])
            failures += 1
            await asyncio.sleep(_RETRY_S[-1])
