"""One filter as a service: it listens, and watches whether the Engine is there."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from job_consumer.engines.docker.filter.relay import EngineAway, EngineFilter, FilterOptions

logger = logging.getLogger(__name__)

ENGINE_PATIENCE_S = 60.0
"""A container keeps the socket that was mounted when it started; an Engine that was started anew may have another."""
_LOOK_S = 5.0


async def run_filter(options: FilterOptions, socket: Path, alive_file: Path | None = None) -> int:
    """Serve at `socket` until SIGTERM, SIGINT, or the Engine has refused for a minute. Returns the exit code."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    engine_filter = EngineFilter(options)
    async with serve_at(engine_filter, socket):
        logger.info("consumers reach the Engine at %s", socket)
        return await _watch(engine_filter, stopping, alive_file)


@contextlib.asynccontextmanager
async def serve_at(engine_filter: EngineFilter, socket: Path) -> AsyncIterator[None]:
    """Serve while the block is open; calls that are under way at its end are cut."""
    socket.unlink(missing_ok=True)
    calls: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.add(call := asyncio.create_task(engine_filter.serve(reader, writer)))
        call.add_done_callback(calls.discard)

    server = await asyncio.start_unix_server(begin, socket)
    socket.chmod(0o600)
    try:
        yield
    finally:
        server.close()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def _watch(engine_filter: EngineFilter, stopping: asyncio.Event, alive_file: Path | None) -> int:
    """Look at the Engine until a signal, or until it has refused for too long."""
    refused_s = 0.0
    while refused_s < ENGINE_PATIENCE_S:
        try:
            await engine_filter.check()
            refused_s = 0.0
            if alive_file is not None:
                alive_file.touch()
        except EngineAway as error:
            refused_s += _LOOK_S
            logger.warning("no Docker Engine answers: %s", error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _LOOK_S)
            return 0
    logger.error(
        "the Engine has refused for %g s: this filter ends, so that its next start mounts its socket anew", refused_s
    )
    return 5
