"""Keeps a gateway's processes running: the workers on the shared port, and one for control calls."""

import logging
import multiprocessing
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from grpc_gateway.options import GatewayOptions
from grpc_gateway.process.worker import BEAT_S, run_worker

logger = logging.getLogger(__name__)

_LOOK_S = 0.5
_RESTART_S = 1.0
"""The pause between the end of a process and the start of its successor."""
_SILENT_S = 30.0
"""A process whose event loop has not turned for this long is not alive."""
_STOP_MARGIN_S = 10.0


class _Child:
    """The place of one process; a successor takes it over when the process ends."""

    def __init__(self, options: GatewayOptions, log_level: str, log_format: str) -> None:
        self.options = options
        self._log = (log_level, log_format)
        # Not forked: a child must not inherit locks and threads.
        self._context = multiprocessing.get_context("spawn")
        self._process: SpawnProcess | None = None
        self._beats: Connection | None = None
        self._starts_at = 0.0
        self.last_beat: float | None = None

    def start(self) -> None:
        receiving, sending = self._context.Pipe(duplex=False)
        self._process = self._context.Process(
            target=run_worker, args=(self.options, sending, *self._log), name=self.options.name
        )
        self._process.start()
        sending.close()
        self._beats = receiving
        self.last_beat = None

    def look(self, now: float) -> None:
        """Take in beats, and start a successor for a process that ended."""
        if self._process is not None and self._process.exitcode is not None:
            logger.error("%s ended with exit code %s; it is started again", self.options.name, self._process.exitcode)
            self._forget()
            self._starts_at = now + _RESTART_S
        if self._process is None and now >= self._starts_at:
            self.start()
        while self._beats is not None and self._beats.poll():
            try:
                self._beats.recv_bytes()
            except EOFError:
                break
            self.last_beat = now

    def waitables(self) -> list[Connection | int]:
        return [self._process.sentinel] if self._process is not None and self._process.exitcode is None else []

    def stop(self, ends_at: float) -> None:
        if self._process is None:
            return
        self._process.join(max(0.0, ends_at - time.monotonic()))
        if self._process.exitcode is None:
            logger.error("%s does not stop; it is killed", self.options.name)
            self._process.kill()
            self._process.join()
        self._forget()

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def _forget(self) -> None:
        if self._beats is not None:
            self._beats.close()
        self._process = self._beats = self.last_beat = None


def supervise(
    processes: Sequence[GatewayOptions],
    stopping: threading.Event,
    *,
    log_level: str,
    log_format: str,
    alive_file: Path | None = None,
) -> None:
    """Run a process with each of these options until the event is set; then drain them all.

    `alive_file` is touched while every process is alive.
    """
    children = [_Child(options, log_level, log_format) for options in processes]
    try:
        while not stopping.is_set():
            now = time.monotonic()
            for child in children:
                child.look(now)
            if alive_file is not None and all(_is_alive(child, now) for child in children):
                # A full disk raises its alarm elsewhere; it must not end the gateway.
                with suppress(OSError):
                    alive_file.touch()
            # The end of a process wakes it; signals set the event.
            wait([waitable for child in children for waitable in child.waitables()], _LOOK_S)
    finally:
        ends_at = time.monotonic() + max(options.drain_s for options in processes) + _STOP_MARGIN_S
        for child in children:
            child.terminate()
        for child in children:
            child.stop(ends_at)


def _is_alive(child: _Child, now: float) -> bool:
    return child.last_beat is not None and now - child.last_beat < _SILENT_S + BEAT_S
