"""Whether the private API answers anything at all: what tells a slow answer from one that will not come."""

import asyncio

import httpx
from anyio import CancelScope

LATE_S = 0.5
"""An answer that takes longer than this makes the door ask."""
_LOOK_S = 0.25
_LOOKS = 16
"""How often the door looks for the answer of `/healthz`, which needs neither a thread nor the database: for 4 s.

Looks are counted, not seconds: while a crowd keeps the door busy, it also keeps the private API busy, and the door
looks more rarely.
"""


class Pulse:
    """Asks `/healthz`, once for all calls that wait. It belongs to one event loop."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._probe: asyncio.Task[bool] | None = None
        self._felt_at = float("-inf")

    def feel(self) -> None:
        """Note an answer of the private API, to whatever call."""
        self._felt_at = asyncio.get_running_loop().time()

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
        felt_before = self._felt_at
        with CancelScope() as asking:
            looking = asyncio.create_task(_look(asking))
            try:
                await self._client.get("/healthz", timeout=None)
                self.feel()
            except httpx.TransportError:
                pass
            finally:
                looking.cancel()
        # Whatever was answered meanwhile shows life as well.
        return self._felt_at > felt_before


async def _look(asking: CancelScope) -> None:
    for _ in range(_LOOKS):
        await asyncio.sleep(_LOOK_S)
    asking.cancel()
