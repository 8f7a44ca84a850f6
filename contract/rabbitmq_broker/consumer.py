"""The half that receives: consumers exist in RabbitMQ only while somebody waits in `receive`."""

import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from contract.broker import Delivery
from contract.rabbitmq_broker.link import Link
from contract.schemas import UID_PATTERN

logger = logging.getLogger(__name__)

_UID = re.compile(UID_PATTERN.encode())


@dataclass(eq=False)
class Reception:
    """One call of `receive`. `tags` are its consumers on the current channel; an answered one has none."""

    queues: Sequence[str]
    answer: Future[Delivery | None] = field(default_factory=Future)
    tags: list[str] = field(default_factory=list)


class Consumer(Link):
    """Waiting receptions survive a lost connection; the next one registers them again.

    The first message answers a reception and cancels its consumers. What RabbitMQ pushed meanwhile, at most one message
    of each other queue, pika itself gives back: it rejects deliveries to a consumer that is being cancelled.
    """

    name = "consumer"

    def __init__(self, *args: Any, post: Callable[[Callable[[], None]], bool], bury: Callable[[bytes], None]) -> None:
        """`post` runs a callback in the loop's thread; `bury` keeps a body that names no task."""
        super().__init__(*args)
        self._post = post
        self._bury = bury
        self._waiting: list[Reception] = []
        self._wake_next = False

    def begin(self, reception: Reception) -> None:
        """Let the reception wait for its first message."""
        if self._closing or self._wake_next:
            self._wake_next = False
            reception.answer.set_result(None)
            return
        self._waiting.append(reception)
        if self._channel is not None:
            self._register(reception)

    def end(self, reception: Reception, delivery: Delivery | None = None) -> None:
        """Answer the reception, unless it is answered, and push it nothing more."""
        if reception.answer.done():
            return
        self._waiting.remove(reception)
        for tag in reception.tags:
            # With a callback, since pika keeps the tag of a consumer that is cancelled without one for ever.
            self._channel.basic_cancel(tag, callback=lambda _: None)
        reception.answer.set_result(delivery)

    def wake(self) -> None:
        """Answer every waiting reception; where none waits, the next one."""
        self._wake_next = not self._waiting
        for reception in list(self._waiting):
            self.end(reception)

    def _set_up(self, channel: Any, ready: Callable[[Any], None]) -> None:
        channel.basic_qos(prefetch_count=1, callback=ready)

    def _on_ready(self) -> None:
        for reception in self._waiting:
            self._register(reception)

    def _on_lost(self) -> None:
        for reception in self._waiting:
            reception.tags.clear()

    def _on_closed(self) -> None:
        for reception in list(self._waiting):
            self.end(reception)

    def _register(self, reception: Reception) -> None:
        """In the order of preference: a queue that has a message pushes it before it lets the next one register."""
        on_message = partial(self._on_message, reception)
        reception.tags = [self._channel.basic_consume(queue, on_message) for queue in reception.queues]

    def _on_message(self, reception: Reception, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if not _UID.fullmatch(body):
            logger.warning("a message of %d bytes in %s names no task; put aside", len(body), method.routing_key)
            self._bury(body)
            channel.basic_ack(method.delivery_tag)
            return
        self.end(reception, Delivery(body.decode("ascii"), partial(self._settle, channel, method.delivery_tag)))

    def _settle(self, channel: Any, tag: int, acked: bool) -> None:
        """Called by whoever holds the delivery, in its own thread."""
        if not self._post(partial(self._settle_in_loop, channel, tag, acked)):
            logger.info("a message was not settled before close; RabbitMQ delivers it again")

    def _settle_in_loop(self, channel: Any, tag: int, acked: bool) -> None:
        if channel is not self._channel:
            logger.info("the connection of a held message is gone; RabbitMQ delivers it again")
        elif acked:
            channel.basic_ack(tag)
        else:
            channel.basic_nack(tag)
