"""A filter before the Docker Engine of the tests, in a thread."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from job_consumer.engines.docker.filter.relay import EngineFilter, FilterOptions
from job_consumer.engines.docker.filter.service import serve_at
from tests.engine_client import SOCKET


@contextmanager
def run_filter(work_dir: Path, *, engine_socket: Path = Path(SOCKET), **options: Any) -> Iterator[str]:
    """Run it while the block is open; yields the address for clients."""
    engine_filter = EngineFilter(FilterOptions(engine_socket, work_dir, **options))
    # A path of its own: that of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="filter-") as folder:
        socket = Path(folder) / "docker.sock"
        loop, ready = asyncio.new_event_loop(), Event()
        stopping = asyncio.Event()

        async def serve() -> None:
            async with serve_at(engine_filter, socket):
                ready.set()
                await stopping.wait()

        thread = Thread(target=loop.run_until_complete, args=(serve(),), name="engine-filter")
        thread.start()
        assert ready.wait(60)
        try:
            yield f"unix://{socket}"
        finally:
            loop.call_soon_threadsafe(stopping.set)
            thread.join(60)
            loop.close()
