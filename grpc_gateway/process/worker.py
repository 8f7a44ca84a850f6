"""One process of a gateway: what the supervisor starts."""

import asyncio
import gc
import logging
import os
import signal
import sys
from multiprocessing.connection import Connection

from grpc_gateway.options import GatewayOptions
from grpc_gateway.ports import PortTaken
from grpc_gateway.service import serve_until
from kit.logging import configure_logging

logger = logging.getLogger(__name__)

BEAT_S = 2.0
"""How often a process tells its supervisor that its event loop turns, and checks that there still is one."""
EXIT_PORT_TAKEN = 3


def run_worker(options: GatewayOptions, beats: Connection, log_level: str, log_format: str) -> None:
    """Serve until SIGTERM or until the supervisor is gone; the first beat reports that it serves."""
    # Ctrl-C reaches every process of the terminal; the supervisor decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logging(log_level, log_format)
    os.nice(options.niceness)
    try:
        asyncio.run(_serve(options, beats))
    except PortTaken as error:
        logger.error("%s: %s", options.name, error)
        sys.exit(EXIT_PORT_TAKEN)


async def _serve(options: GatewayOptions, beats: Connection) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)

    def beat() -> None:
        try:
            beats.send_bytes(b"")
        except OSError:
            logger.warning("the supervisor is gone; stopping")
            stopping.set()
            return
        loop.call_later(BEAT_S, beat)

    def on_start(port: int) -> None:
        logger.info("%s serves on port %d", options.name, port)
        # What exists by now stays: each full collection would look at all of it and hold every call for 20 ms.
        gc.collect()
        gc.freeze()
        beat()

    await serve_until(options, stopping, on_start)
