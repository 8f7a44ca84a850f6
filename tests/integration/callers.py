"""Callers of a gateway that are never done."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from tests.integration.grpc_harness import RunningGateway
from tests.waiting import PATIENCE_S


@dataclass
class Callers:
    """Callers that call again as soon as they are answered, so that a call is always open."""

    gateway: RunningGateway
    path: str
    metadata: tuple[tuple[str, str], ...]
    patience_s: float = PATIENCE_S
    """How long each waits for its answer."""
    latencies_s: list[float] = field(default_factory=list)
    """Of each call that was answered."""
    refused: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return len(self.latencies_s)

    @contextmanager
    def calling(self, count: int = 3) -> Iterator["Callers"]:
        """So many of them, until the block ends or `stop`."""
        self.threads = [threading.Thread(target=self._call, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()
        try:
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        """Wait for the answers to the calls that are open."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(self.patience_s)

    def _call(self) -> None:
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                self.gateway.unary(self.path)(b"x", metadata=self.metadata, timeout=self.patience_s)
            except grpc.RpcError as error:
                self.refused.append(f"{error.code()}: {error.details()}")
            else:
                self.latencies_s.append(time.monotonic() - began)
