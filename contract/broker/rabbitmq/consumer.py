"""The receiving connection: consumers exist in RabbitMQ only while somebody waits in `receive`."""

import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from contract.broker import Delivery
from contract.broker.rabbitmq.link import Link
from contract.schemas import UID_PATTERN

logger = logging.getLogger(__name__)

_UID = re.compile(UID_PATTERN.encode())


@dataclass(eq=False)
class PendingReceive:
    """A waiting call of `receive`. `tags` name its consumers on the current channel."""

    queues: Sequence[str]
    answer: Future[Delivery | None] = field(default_factory=Future)
    tags: list[str] = field(default_factory=list)


class Consumer(Link):
    """Answers pending receives. They survive a lost connection: the next one registers their consumers again.

    The first message answers a receive and cancels its consumers. What RabbitMQ pushed meanwhile, at most one message
    from each other queue, pika returns: it rejects deliveries to a consumer that is being cancelled.
    """

    name = "consumer"

    def __init__(
        self, *args: Any, post: Callable[[Callable[[], None]], bool], dead_letter: Callable[[bytes], None]
    ) -> None:
        """`post` runs a callback in the loop's thread; `dead_letter` sets aside a body that is no uid."""
        super().__init__(*args)
        self._post = post
        self._dead_letter = dead_letter
        self._waiting: list[PendingReceive] = []
        self._wake_next = False

    def begin(self, pending: PendingReceive) -> None:
        """Let the receive wait for its first message."""
        if self._closing or self._wake_next:
            self._wake_next = False
            pending.answer.set_result(None)
            return
        self._waiting.append(pending)
        if self._channel is not None:
            self._register(pending)

    def end(self, pending: PendingReceive, delivery: Delivery | None = None) -> None:
        """Answer the receive, unless it is answered, and cancel its consumers."""
        if pending.answer.done():
            return
        self._waiting.remove(pending)
        for tag in pending.tags:
            # With a callback: pika would keep the tag of a consumer that is cancelled without one for ever.
            self._channel.basic_cancel(tag, callback=lambda _: None)
        pending.answer.set_result(delivery)

    def wake(self) -> None:
        """Answer every pending receive or, if there is none, the next one."""
        self._wake_next = not self._waiting
        for pending in list(self._waiting):
            self.end(pending)

    def _set_up(self, channel: Any, ready: Callable[[Any], None]) -> None:
        channel.basic_qos(prefetch_count=1, callback=ready)

    def _on_ready(self) -> None:
        for pending in self._waiting:
            self._register(pending)

    def _on_lost(self) -> None:
        for pending in self._waiting:
            pending.tags.clear()

    def _on_closed(self) -> None:
        for pending in list(self._waiting):
            self.end(pending)

    def _register(self, pending: PendingReceive) -> None:
        """Consume in the order of preference: a queue with a message pushes it before the next one is consumed."""
        on_message = partial(self._on_message, pending)
        pending.tags = [self._channel.basic_consume(queue, on_message) for queue in pending.queues]

    def _on_message(self, pending: PendingReceive, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if not _UID.fullmatch(body):
            logger.warning(
                "a message of %d bytes in %s is no uid; it was moved to the dead-letter queue",
                len(body),
                method.routing_key,
            )
            self._dead_letter(body)
            channel.basic_ack(method.delivery_tag)
            return
        self.end(pending, Delivery(body.decode("ascii"), partial(self._settle, channel, method.delivery_tag)))

    def _settle(self, channel: Any, tag: int, acked: bool) -> None:
        """Called by the holder of the delivery, in its own thread."""
        if not self._post(partial(self._settle_in_loop, channel, tag, acked)):
            logger.info("a message was not settled before close; RabbitMQ redelivers it")

    def _settle_in_loop(self, channel: Any, tag: int, acked: bool) -> None:
        if channel is not self._channel:
            logger.info("the connection of a held message is gone; RabbitMQ redelivers it")
        elif acked:
            channel.basic_ack(tag)
        else:
            channel.basic_nack(tag)
