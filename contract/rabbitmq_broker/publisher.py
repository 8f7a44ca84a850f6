"""The half that publishes: every letter is confirmed, returned to be sent again, or given up."""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pika

from contract.broker import BrokerUnavailable
from contract.rabbitmq_broker.link import Link

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Letter:
    """A message on its way; `confirmed` ends with the broker's word."""

    queue: str
    body: bytes
    confirmed: Future[None] = field(default_factory=Future)
    returned: bool = False


class Publisher(Link):
    """A letter waits in `_backlog` until the link is ready, then in `_unconfirmed` until the broker has it.

    A lost connection moves the unconfirmed back: ringing twice does no harm.
    """

    name = "publisher"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._backlog: list[Letter] = []
        self._unconfirmed: dict[int, Letter] = {}
        self._last_tag = 0

    def send(self, letter: Letter) -> None:
        """Publish now, or as soon as the link is ready."""
        if self._closing:
            letter.confirmed.set_exception(BrokerUnavailable("this broker was closed"))
        elif self._channel is None:
            self._backlog.append(letter)
        else:
            self._last_tag += 1
            self._unconfirmed[self._last_tag] = letter
            properties = pika.BasicProperties(
                delivery_mode=pika.DeliveryMode.Persistent.value, message_id=str(self._last_tag)
            )
            # Without `mandatory` RabbitMQ confirms a message that it throws away for want of a queue.
            self._channel.basic_publish("", letter.queue, letter.body, properties, mandatory=True)

    def give_up(self, letter: Letter) -> None:
        """Nobody waits for this letter any longer. If it was sent, the connection is not to be trusted."""
        if letter in self._backlog:
            self._backlog.remove(letter)
        tag = next((tag for tag, unconfirmed in self._unconfirmed.items() if unconfirmed is letter), None)
        if tag is not None:
            del self._unconfirmed[tag]
            self.lose("no confirm in time: a memory or disk alarm, a queue without a leader, or a dead network")

    def _set_up(self, channel: Any, ready: Callable[[Any], None]) -> None:
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(lambda frame: self._on_confirm(channel, frame.method), callback=ready)

    def _on_ready(self) -> None:
        self._last_tag = 0
        backlog, self._backlog = self._backlog, []
        for letter in backlog:
            self.send(letter)

    def _on_lost(self) -> None:
        self._backlog = [*self._unconfirmed.values(), *self._backlog]
        self._unconfirmed.clear()

    def _on_closed(self) -> None:
        for letter in self._backlog:
            letter.confirmed.set_exception(BrokerUnavailable("this broker was closed"))
        self._backlog.clear()

    def _on_return(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """The queue is gone. The confirm of the returned message follows, and finds nothing under its tag."""
        if channel is not self._channel:
            return
        letter = self._unconfirmed.pop(int(properties.message_id))
        if letter.returned:
            letter.confirmed.set_exception(BrokerUnavailable(f"the queue {letter.queue} does not stay declared"))
            return
        logger.warning("the queue %s was deleted; declaring it again", letter.queue)
        letter.returned = True
        self._topology.declare(channel)
        self.send(letter)

    def _on_confirm(self, channel: Any, method: Any) -> None:
        if channel is not self._channel:
            return
        last: int = method.delivery_tag
        tags = [tag for tag in self._unconfirmed if tag <= last] if method.multiple else [last]
        for letter in filter(None, [self._unconfirmed.pop(tag, None) for tag in tags]):
            if isinstance(method, pika.spec.Basic.Ack):
                letter.confirmed.set_result(None)
            else:
                letter.confirmed.set_exception(BrokerUnavailable(f"RabbitMQ refused a message for {letter.queue}"))
