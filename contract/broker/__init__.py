"""The broker as services see it: it rings a bell, the private API holds the truth.

A message is the uid of a task or a replica and nothing more. Losing, doubling or delaying one may delay a task, never
lose it, so a message means only "now is a good time to claim". There are two implementations: `memory` and
`rabbitmq`.
"""

from collections.abc import Callable, Sequence
from threading import Lock
from types import TracebackType
from typing import Protocol, Self

CPU_QUEUE = "tasks.cpu"
GPU_QUEUE = "tasks.gpu"
CPU_REPLICA_QUEUE = "replicas.cpu"
GPU_REPLICA_QUEUE = "replicas.gpu"
QUEUES = (CPU_QUEUE, GPU_QUEUE, CPU_REPLICA_QUEUE, GPU_REPLICA_QUEUE)

MAX_WAITING = 100_000
"""Bells that one queue keeps. Beyond that the oldest is dropped, and its task waits for a consumer's own poll."""


class BrokerUnavailable(Exception):
    """The broker does not answer. A publish that raises this may have arrived all the same."""


def queue_for(use_gpu: bool) -> str:
    """The queue that rings for a task."""
    return GPU_QUEUE if use_gpu else CPU_QUEUE


def replica_queue_for(use_gpu: bool) -> str:
    """The queue that rings for a replica."""
    return GPU_REPLICA_QUEUE if use_gpu else CPU_REPLICA_QUEUE


class Delivery:
    """A message that one consumer holds until its first `ack` or `requeue`; later calls do nothing.

    Both may be called from any thread, return at once and never raise: once the connection that brought the message is
    lost, the broker redelivers it.
    """

    def __init__(self, uid: str, settle: Callable[[bool], None]) -> None:
        """`settle` takes the message off the broker (True) or gives it back (False)."""
        self.uid = uid
        self._settle = settle
        self._settled = Lock()

    def ack(self) -> None:
        """Take the message off the broker: the bell was heard."""
        if self._settled.acquire(blocking=False):
            self._settle(True)

    def requeue(self) -> None:
        """Put the message back in its old place, for whoever receives next; that may be this consumer."""
        if self._settled.acquire(blocking=False):
            self._settle(False)


class Broker(Protocol):
    """Carries bells. Every method may be called from any thread, also concurrently."""

    def publish(self, queue: str, uid: str) -> None:
        """Return once the broker confirmed the message.

        Raises `BrokerUnavailable` within 5 s otherwise. The error means "unknown", never "not sent".
        """

    def receive(self, queues: Sequence[str], timeout_s: float) -> Delivery | None:
        """The next message, from the first of `queues` that has one, or None if none arrives in time.

        A broker that is away looks like empty queues, so a caller's loop never spins; a message that arrives once it
        is back is still received. Between two calls nothing is held for the caller but what it has not settled: a
        bell never waits behind a busy consumer while another one is idle. `wake` makes a call return None, and after
        `close` every call returns None at once.
        """

    def wake(self) -> None:
        """Make every waiting `receive` return None at once or, if none is waiting, the next one."""

    def check(self) -> None:
        """Raise `BrokerUnavailable` with the reason unless publishing and receiving can work. Never waits."""

    def close(self) -> None:
        """End every waiting call and disconnect; the broker takes back what was not settled. Idempotent."""

    def __enter__(self) -> Self:
        """The broker itself, closed at the end of the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
