"""Wakes requests that wait for a task or the deployments to change.

Long polls hold neither a thread nor a database connection.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Lock

RECHECK_S = 2.0
"""How often waiting requests read the row anyway: another process may have changed it."""


DEPLOYMENTS = "deployments"
"""Stands in for a uid: the routing table of the gateways."""
IMAGE_LOOKUPS = "image lookups"
"""Stands in for a uid: the images that consumers are to look up."""
IMAGE_FINDINGS = "image findings"
"""Stands in for a uid: what they found."""
FEED = "feed"
"""Stands in for a uid: what streams of events are fed from."""


class TaskWatch:
    """Knows which requests wait for which task. `notify` may be called from any thread, the rest from event loops."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiters: defaultdict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = defaultdict(set)

    def notify(self, uid: str) -> None:
        """Wake every request that waits for this task."""
        with self._lock:
            waiters = list(self._waiters.get(uid, ()))
        for loop, event in waiters:
            loop.call_soon_threadsafe(event.set)

    def watched(self) -> list[str]:
        """What requests wait for right now."""
        with self._lock:
            return list(self._waiters)

    @asynccontextmanager
    async def watch(self, uid: str) -> AsyncIterator["Watcher"]:
        """Watch a task while the block is open. Enter it before reading the row, so that no change is missed."""
        event = asyncio.Event()
        entry = (asyncio.get_running_loop(), event)
        with self._lock:
            self._waiters[uid].add(entry)
        try:
            yield Watcher(event)
        finally:
            with self._lock:
                self._waiters[uid].discard(entry)
                if not self._waiters[uid]:
                    del self._waiters[uid]


class Watcher:
    """A request that waits for a change."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def changed(self, timeout_s: float, stopping: asyncio.Event | None = None) -> None:
        """Return after a change, after `timeout_s`, once `stopping` is set, or when the row should be read anyway."""
        waits = [asyncio.create_task(each.wait()) for each in (self._event, stopping) if each is not None]
        try:
            await asyncio.wait(waits, timeout=min(timeout_s, RECHECK_S), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        self._event.clear()

    def wake(self) -> None:
        """Let it return, from its own event loop: whoever waits has another reason to look."""
        self._event.set()

    async def told(self, timeout_s: float) -> None:
        """Return after a change that somebody told of, or after `timeout_s`: for what `loops.endings` looks after."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout_s)
        except TimeoutError:
            return
        self._event.clear()
