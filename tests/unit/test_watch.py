"""What wakes a request that waits for a change."""

import asyncio

import pytest

from private_api import watch
from private_api.watch import TaskWatch

DEADLINE_S = 60


@pytest.fixture(autouse=True)
def never_rechecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RECHECK_S", 3600.0)


def test_a_server_that_stops_wakes_its_waiting_requests() -> None:
    async def wait() -> None:
        stopping = asyncio.Event()
        async with TaskWatch().watch("a") as watcher:
            waiting = asyncio.create_task(watcher.changed(3600, stopping))
            await asyncio.sleep(0)
            assert not waiting.done()
            stopping.set()
            await asyncio.wait_for(waiting, DEADLINE_S)

    asyncio.run(wait())


def test_a_change_wakes_and_is_told_once() -> None:
    async def wait() -> None:
        changes = TaskWatch()
        async with changes.watch("a") as watcher:
            changes.notify("a")
            await asyncio.wait_for(watcher.changed(3600, asyncio.Event()), DEADLINE_S)
            waiting = asyncio.create_task(watcher.changed(3600))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            changes.notify("a")
            await asyncio.wait_for(waiting, DEADLINE_S)

    asyncio.run(wait())
