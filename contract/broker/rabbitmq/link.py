"""A connection that reopens itself: set-up, backoff, closing, and the reason why it is down."""

import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import pika
from pika.adapters.select_connection import IOLoop
from pika.exceptions import ChannelClosedByBroker

from contract.broker.rabbitmq.topology import Topology

logger = logging.getLogger(__name__)

SET_UP_LIMIT_S = 10.0
MAX_BACKOFF_S = 5.0
STEADY_S = 10.0
"""A connection that lasted this long resets the backoff."""


class Link(ABC):
    """A connection with one channel that is reopened until the link is closed.

    `_channel` is set exactly while the link is ready: queues declared, channel set up. Everything but `problem` belongs
    to the loop's thread.
    """

    name = "link"

    def __init__(
        self, loop: IOLoop, parameters: pika.URLParameters, topology: Topology, on_gone: Callable[[], None]
    ) -> None:
        self.problem: str | None = "RabbitMQ is not connected yet"
        """Why the link is not ready; any thread may read it."""
        self._loop = loop
        self._parameters = parameters
        self._topology = topology
        self._tell_gone = on_gone
        self._connection: Any = None
        self._channel: Any = None
        self._alive: set[Any] = set()
        self._closing = False
        self._failures = 0
        self._ready_at: float | None = None

    @property
    def is_gone(self) -> bool:
        """Whether no connection is left, not even one that is still closing."""
        return not self._alive

    def connect(self) -> None:
        """Begin to connect; success and failure arrive as callbacks."""
        if self._closing:
            return
        self._connection = pika.SelectConnection(
            self._parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_gone,
            on_close_callback=self._on_gone,
            custom_ioloop=self._loop,
        )
        self._alive.add(self._connection)
        self._loop.call_later(SET_UP_LIMIT_S, partial(self._check_set_up, self._connection))

    def lose(self, reason: object) -> None:
        """Abandon the current connection, if there is one, and open another after a pause."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is None:
            return
        self._note(reason)
        if not (connection.is_closing or connection.is_closed):
            # On a dead network closing lasts until the heartbeat gives up; the next connection does not wait for it.
            connection.close()
        self._on_lost()
        if not self._closing:
            self._loop.call_later(self._next_pause_s(), self.connect)

    def close(self) -> None:
        """Close the connection for good. Does nothing the second time."""
        self._closing = True
        self.lose("closed")
        self._on_closed()
        self.problem = "this broker was closed"

    @abstractmethod
    def _set_up(self, channel: Any, ready: Callable[[Any], None]) -> None:
        """Prepare a fresh channel, and call `ready` with its last answer."""

    @abstractmethod
    def _on_ready(self) -> None:
        """Called once `_channel` works."""

    @abstractmethod
    def _on_lost(self) -> None:
        """Called when the channel was lost, with whatever was under way on it."""

    @abstractmethod
    def _on_closed(self) -> None:
        """Called by `close`: there will be no other channel."""

    def _next_pause_s(self) -> float:
        """Exponential backoff with full jitter."""
        steady = self._ready_at is not None and time.monotonic() - self._ready_at > STEADY_S
        self._failures = 0 if steady else self._failures + 1
        self._ready_at = None
        return random.uniform(0, min(MAX_BACKOFF_S, 0.1 * 2 ** min(self._failures, 10)))  # noqa: S311 - no secret

    def _on_open(self, connection: Any) -> None:
        connection.channel(on_open_callback=partial(self._on_channel, connection))

    def _on_channel(self, connection: Any, channel: Any) -> None:
        # RabbitMQ may close a channel, or cancel a consumer whose queue is deleted, on a connection that stays open.
        channel.add_on_close_callback(lambda _, reason: self._lose_if_current(connection, reason))
        channel.add_on_cancel_callback(lambda _: self._lose_if_current(connection, "RabbitMQ cancelled a consumer"))
        self._topology.declare(channel)
        self._set_up(channel, lambda _: self._on_set_up(connection, channel))

    def _on_set_up(self, connection: Any, channel: Any) -> None:
        if connection is self._connection:
            logger.info("%s is connected to RabbitMQ", self.name)
            self.problem, self._channel, self._ready_at = None, channel, time.monotonic()
            self._on_ready()

    def _check_set_up(self, connection: Any) -> None:
        if self._channel is None:
            self._lose_if_current(connection, f"no working channel within {SET_UP_LIMIT_S:.0f} s")

    def _on_gone(self, connection: Any, reason: object) -> None:
        self._alive.discard(connection)
        self._lose_if_current(connection, reason)
        self._tell_gone()

    def _lose_if_current(self, connection: Any, reason: object) -> None:
        """Lose this connection, unless it was abandoned before: it still calls back until it is gone."""
        if connection is self._connection:
            self.lose(reason)

    def _note(self, reason: object) -> None:
        """Log what is wrong, once until it changes."""
        problem = _explain(reason)
        if problem != self.problem and not self._closing:
            level = logging.ERROR if _is_conflict(reason) else logging.WARNING
            logger.log(level, "%s has no RabbitMQ: %s", self.name, problem)
        self.problem = problem


def _is_conflict(reason: object) -> bool:
    """Whether a queue exists with other arguments, which no retry will change."""
    return isinstance(reason, ChannelClosedByBroker) and "inequivalent arg" in reason.reply_text


def _explain(reason: object) -> str:
    if _is_conflict(reason):
        return (
            "a queue exists with other arguments than this release declares. Delete it (`rabbitmqctl delete_queue "
            f"NAME`): it holds hints only, no task is lost. RabbitMQ says: {reason}"
        )
    # Several of pika's exceptions are empty as a str and say everything in their repr.
    return repr(reason) if isinstance(reason, Exception) else str(reason)
