"""Whether the private API answers anything at all: what tells a slow answer from one that will not come."""

import asyncio

import httpx

LATE_S = 0.5
"""An answer that takes longer than this makes the door ask."""
_PROBE_S = 4.0
"""How long the private API has for `/healthz`, which needs neither a thread nor the database."""


class Pulse:
    """Asks `/healthz`, once for all calls that wait. It belongs to one event loop."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._probe: asyncio.Task[bool] | None = None
        self._felt_at = float("-inf")

    async def wait_until_gone(self) -> None:
        """Return once the private API does not answer: `LATE_S` and the time for one probe after it froze."""
        while True:
            await asyncio.sleep(LATE_S)
            if not await self._is_felt():
                return

    async def _is_felt(self) -> bool:
        if asyncio.get_running_loop().time() - self._felt_at < LATE_S:
            return True
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._ask())
        # A call that ends must not end what others wait for.
        return await asyncio.shield(self._probe)

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(_PROBE_S):
                await self._client.get("/healthz")
        except (TimeoutError, httpx.TransportError):
            return False
        self._felt_at = asyncio.get_running_loop().time()
        return True
