"""Whether the private API answers anything at all: what tells a slow answer from one that will not come."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
        self._felt_at = float("-inf")
        self._waiting: dict[object, tuple[asyncio.Event, Callable[[], None]]] = {}
        self._watch: asyncio.Task[None] | None = None

    def feel(self) -> None:
        """Note an answer of the private API, to whatever call."""
        self._felt_at = asyncio.get_running_loop().time()

    @contextmanager
    def watched(self, is_sent: asyncio.Event, on_gone: Callable[[], None]) -> Iterator[None]:
        """Call `on_gone` once the private API does not answer, while the block is open and the call `is_sent`.

        That is at most twice `LATE_S` and the time for one probe after it froze. However many calls wait, one task
        looks after them: a thousand timers would keep a core busy.
        """
        call = object()
        self._waiting[call] = (is_sent, on_gone)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look_after_calls())
        try:
            yield
        finally:
            del self._waiting[call]

    async def _look_after_calls(self) -> None:
        while self._waiting:
            waiting = list(self._waiting)
            await asyncio.sleep(LATE_S)
            # Those that waited all the time. A connection that is still being made has a limit of its own.
            late = [call for call in waiting if call in self._waiting and self._waiting[call][0].is_set()]
            if not late or await self._is_felt():
                continue
            for _, on_gone in [self._waiting[call] for call in late if call in self._waiting]:
                on_gone()

    async def _is_felt(self) -> bool:
        if asyncio.get_running_loop().time() - self._felt_at < LATE_S:
            return True
        return await self._ask()

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
