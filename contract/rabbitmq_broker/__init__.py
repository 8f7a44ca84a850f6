"""RabbitMQ behind the broker's protocol: the only place that knows pika.

One thread runs pika's I/O loop, owns both connections and never blocks; other threads post callbacks to it. Not pika's
`BlockingConnection`: it waits for a confirm for as long as RabbitMQ likes (a quorum queue without a leader never sends
one) and no call ends that wait, so every such publish would leave a thread and a connection behind.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self

import pika
from pika.adapters.select_connection import IOLoop

from contract.broker import BrokerUnavailable, Delivery
from contract.rabbitmq_broker.consumer import Consumer, Reception
from contract.rabbitmq_broker.publisher import Letter, Publisher
from contract.rabbitmq_broker.topology import DEAD_QUEUE, QueueType, Topology

logger = logging.getLogger(__name__)

HEARTBEAT_S = 30
CLOSE_LIMIT_S = 3.0


class RabbitMQBroker:
    """Two connections, since an alarm blocks those that publish and must not deafen those that consume.

    The broker may be away at the start and at any time after; it is looked for until `close`.
    """

    def __init__(
        self, url: str, *, publish_timeout_s: float = 5.0, queue_type: QueueType = "classic", prefix: str = ""
    ) -> None:
        """`queue_type`: `quorum` is for a cluster of three; on a single node it loses messages that classic keeps.

        `prefix` goes before the names of the queues, for several installations in one virtual host.
        """
        self._publish_timeout_s = publish_timeout_s
        self._topology = Topology(queue_type, prefix)
        self._lock = Lock()
        self._closed = Event()
        self._loop = IOLoop()
        parameters = _parameters(url, publish_timeout_s)
        common = (self._loop, parameters, self._topology, self._stop_if_gone)
        self._publisher = Publisher(*common)
        self._consumer = Consumer(*common, post=self._post, bury=self._bury)
        self._post(self._publisher.connect)
        self._post(self._consumer.connect)
        self._thread = Thread(target=self._run, name="rabbitmq", daemon=True)
        self._thread.start()

    def publish(self, queue: str, uid: str) -> None:
        """A queue that was deleted is declared again; a connection that confirms nothing in time is replaced."""
        letter = Letter(self._topology.name(queue), uid.encode())
        if not self._post(partial(self._publisher.send, letter)):
            raise BrokerUnavailable("this broker was closed")
        try:
            letter.confirmed.result(self._publish_timeout_s)
        except TimeoutError as error:
            problem = self._publisher.problem or "RabbitMQ is connected but does not confirm"
            self._post(partial(self._publisher.give_up, letter))
            raise BrokerUnavailable(f"{queue}: no confirm in {self._publish_timeout_s:g} s. {problem}") from error

    def receive(self, queues: Sequence[str], timeout_s: float) -> Delivery | None:
        """On quorum queues the order of `queues` is a preference, not a promise."""
        reception = Reception([self._topology.name(queue) for queue in queues])
        if not self._post(partial(self._consumer.begin, reception)):
            return None
        try:
            return reception.answer.result(timeout_s)
        except TimeoutError:
            self._post(partial(self._consumer.end, reception))
            return reception.answer.result()

    def wake(self) -> None:
        """Works while RabbitMQ is away, too."""
        self._post(self._consumer.wake)

    def check(self) -> None:
        """Says what this process knows: a silent network shows only when a publish or a heartbeat fails."""
        problem = self._publisher.problem or self._consumer.problem
        if problem:
            raise BrokerUnavailable(problem)

    def close(self) -> None:
        """Waits 3 s for the goodbye; on a dead network the thread ends later, with the heartbeat."""
        self._post(self._shut_down, last=True)
        self._thread.join(CLOSE_LIMIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, callback: Callable[[], None], *, last: bool = False) -> bool:
        """Run `callback` in the loop's thread, in the order of posting; False once the last one was posted."""
        with self._lock:
            if self._closed.is_set():
                return False
            if last:
                self._closed.set()
            self._loop.add_callback_threadsafe(callback)
            return True

    def _bury(self, body: bytes) -> None:
        # Over the other connection, since an alarm would block this one for the acks, too; nobody waits for the
        # confirm, because the body is worth a look and no more.
        letter = Letter(self._topology.name(DEAD_QUEUE), body)
        self._publisher.send(letter)
        self._loop.call_later(self._publish_timeout_s, partial(self._publisher.give_up, letter))

    def _shut_down(self) -> None:
        self._publisher.close()
        self._consumer.close()
        self._stop_if_gone()

    def _stop_if_gone(self) -> None:
        if self._closed.is_set() and self._publisher.is_gone and self._consumer.is_gone:
            self._loop.stop()

    def _run(self) -> None:
        while True:
            try:
                self._loop.start()
                break
            except Exception:
                logger.exception("the RabbitMQ loop failed; connecting again")
                self._closed.wait(1)
                self._publisher.lose("internal error")
                self._consumer.lose("internal error")
                self._stop_if_gone()
        self._loop.close()


def _parameters(url: str, publish_timeout_s: float) -> pika.URLParameters:
    parameters = pika.URLParameters(url)
    parameters.heartbeat = HEARTBEAT_S
    # RabbitMQ sends no heartbeats to a connection that an alarm blocks: this ends those that nobody waits for.
    parameters.blocked_connection_timeout = publish_timeout_s
    parameters.client_properties = {"connection_name": "inference-server"}
    return parameters
