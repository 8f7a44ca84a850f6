"""The publishing connection: every message is confirmed, sent again, or given up."""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pika

from contract.broker import BrokerUnavailable
from contract.broker.rabbitmq.link import Link

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class OutgoingMessage:
    """A message on its way to RabbitMQ, whose answer settles `confirmed`."""

    queue: str
    body: bytes
    confirmed: Future[None] = field(default_factory=Future)
    returned: bool = False


class Publisher(Link):
    """A message waits in `_backlog` until the link is ready, then in `_unconfirmed` until RabbitMQ confirms it.

    A lost connection moves unconfirmed messages back to the backlog: ringing twice does no harm.
    """

    name = "publisher"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._backlog: list[OutgoingMessage] = []
        self._unconfirmed: dict[int, OutgoingMessage] = {}
        self._last_tag = 0

    def send(self, message: OutgoingMessage) -> None:
        """Publish now, or as soon as the link is ready."""
        if self._closing:
            message.confirmed.set_exception(BrokerUnavailable("this broker was closed"))
        elif self._channel is None:
            self._backlog.append(message)
        else:
            self._last_tag += 1
            self._unconfirmed[self._last_tag] = message
            properties = pika.BasicProperties(
                delivery_mode=pika.DeliveryMode.Persistent.value, message_id=str(self._last_tag)
            )
            # Without `mandatory` RabbitMQ confirms a message that it drops because the queue does not exist.
            self._channel.basic_publish("", message.queue, message.body, properties, mandatory=True)

    def give_up(self, message: OutgoingMessage) -> None:
        """Stop waiting for a confirm. If the message was sent, its connection is no longer trusted and is replaced."""
        if message in self._backlog:
            self._backlog.remove(message)
        tag = next((tag for tag, unconfirmed in self._unconfirmed.items() if unconfirmed is message), None)
        if tag is not None:
            del self._unconfirmed[tag]
            self.lose("no confirm in time: a memory or disk alarm, a queue without a leader, or a dead network")

    def _set_up(self, channel: Any, ready: Callable[[Any], None]) -> None:
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(lambda frame: self._on_confirm(channel, frame.method), callback=ready)

    def _on_ready(self) -> None:
        self._last_tag = 0
        backlog, self._backlog = self._backlog, []
        for message in backlog:
            self.send(message)

    def _on_lost(self) -> None:
        self._backlog = [*self._unconfirmed.values(), *self._backlog]
        self._unconfirmed.clear()

    def _on_closed(self) -> None:
        for message in self._backlog:
            message.confirmed.set_exception(BrokerUnavailable("this broker was closed"))
        self._backlog.clear()

    def _on_return(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """The queue was deleted. The confirm of the returned message follows and finds nothing under its tag."""
        if channel is not self._channel:
            return
        message = self._unconfirmed.pop(int(properties.message_id))
        if message.returned:
            message.confirmed.set_exception(BrokerUnavailable(f"the queue {message.queue} does not stay declared"))
            return
        logger.warning("the queue %s was deleted; declaring it again", message.queue)
        message.returned = True
        self._topology.declare(channel)
        self.send(message)

    def _on_confirm(self, channel: Any, method: Any) -> None:
        if channel is not self._channel:
            return
        last: int = method.delivery_tag
        tags = [tag for tag in self._unconfirmed if tag <= last] if method.multiple else [last]
        for message in filter(None, [self._unconfirmed.pop(tag, None) for tag in tags]):
            if isinstance(method, pika.spec.Basic.Ack):
                message.confirmed.set_result(None)
            else:
                message.confirmed.set_exception(BrokerUnavailable(f"RabbitMQ refused a message for {message.queue}"))
