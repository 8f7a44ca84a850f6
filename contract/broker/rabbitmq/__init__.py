"""RabbitMQ behind the broker's protocol: the only package that knows pika.

One thread runs pika's I/O loop, owns both connections and never blocks; other threads post callbacks to it. It is
not pika's `BlockingConnection`, which waits for a confirm as long as RabbitMQ likes (a quorum queue without a leader
never sends one): no call ends that wait, so each such publish would leak a thread and a connection.
"""

from collections.abc import Callable, Sequence
from functools import partial
from threading import Event, Lock
from types import TracebackType
from typing import Self

import pika
from pika.adapters.select_connection import IOLoop

from contract.broker import BrokerUnavailable, Delivery
from contract.broker.rabbitmq.consumer import Consumer, PendingReceive
from contract.broker.rabbitmq.publisher import OutgoingMessage, Publisher
from contract.broker.rabbitmq.topology import DEAD_QUEUE, QueueType, Topology
from kit.threads import SupervisedThread

HEARTBEAT_S = 30
CLOSE_LIMIT_S = 3.0


class RabbitMQBroker:
    """Publishes and consumes over separate connections: a RabbitMQ alarm blocks a connection that publishes.

    RabbitMQ may be away at the start and at any time after; reconnecting stops only with `close`.
    """

    def __init__(
        self, url: str, *, publish_timeout_s: float = 5.0, queue_type: QueueType = "classic", prefix: str = ""
    ) -> None:
        """`queue_type`: `quorum` is for a cluster of three; on a single node it loses messages that `classic` keeps.

        `prefix` precedes the names of the queues, so that several installations can share a virtual host.
        """
        self._publish_timeout_s = publish_timeout_s
        self._topology = Topology(queue_type, prefix)
        self._lock = Lock()
        self._closed = Event()
        self._loop = IOLoop()
        parameters = _parameters(url, publish_timeout_s)
        common = (self._loop, parameters, self._topology, self._stop_if_gone)
        self._publisher = Publisher(*common)
        self._consumer = Consumer(*common, post=self._post, dead_letter=self._dead_letter)
        self._post(self._publisher.connect)
        self._post(self._consumer.connect)
        self._has_failed = False
        self._thread = SupervisedThread("rabbitmq", self._run, pause_s=1)
        self._thread.start()

    def publish(self, queue: str, uid: str) -> None:
        """Declares a deleted queue again, and replaces a connection that confirms nothing in time."""
        message = OutgoingMessage(self._topology.name(queue), uid.encode())
        if not self._post(partial(self._publisher.send, message)):
            raise BrokerUnavailable("this broker was closed")
        try:
            message.confirmed.result(self._publish_timeout_s)
        except TimeoutError as error:
            problem = self._publisher.problem or "RabbitMQ is connected but does not confirm"
            self._post(partial(self._publisher.give_up, message))
            raise BrokerUnavailable(f"{queue}: no confirm in {self._publish_timeout_s:g} s. {problem}") from error

    def receive(self, queues: Sequence[str], timeout_s: float) -> Delivery | None:
        """On quorum queues the order of `queues` is a preference, not a promise."""
        pending = PendingReceive([self._topology.name(queue) for queue in queues])
        if not self._post(partial(self._consumer.begin, pending)):
            return None
        try:
            return pending.answer.result(timeout_s)
        except TimeoutError:
            self._post(partial(self._consumer.end, pending))
            return pending.answer.result()

    def wake(self) -> None:
        """Works even while RabbitMQ is away."""
        self._post(self._consumer.wake)

    def check(self) -> None:
        """Reports what this process knows: a dead network shows only once a publish or a heartbeat fails."""
        problem = self._publisher.problem or self._consumer.problem
        if problem:
            raise BrokerUnavailable(problem)

    def close(self) -> None:
        """Waits up to 3 s for the connections to close; on a dead network the thread ends once the heartbeat fails."""
        self._post(self._shut_down, last=True)
        self._thread.join(CLOSE_LIMIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, callback: Callable[[], None], *, last: bool = False) -> bool:
        """Run `callback` in the loop's thread, in the order of posting. Returns False once the last one was posted."""
        with self._lock:
            if self._closed.is_set():
                return False
            if last:
                self._closed.set()
            self._loop.add_callback_threadsafe(callback)
            return True

    def _dead_letter(self, body: bytes) -> None:
        # Over the publisher's connection: an alarm would block this one, and its acks with it. Nobody waits for the
        # confirm, because the body is only kept for an operator to look at.
        message = OutgoingMessage(self._topology.name(DEAD_QUEUE), body)
        self._publisher.send(message)
        self._loop.call_later(self._publish_timeout_s, partial(self._publisher.give_up, message))

    def _shut_down(self) -> None:
        self._publisher.close()
        self._consumer.close()
        self._stop_if_gone()

    def _stop_if_gone(self) -> None:
        if self._closed.is_set() and self._publisher.is_gone and self._consumer.is_gone:
            self._loop.stop()

    def _run(self) -> None:
        if self._has_failed:
            self._publisher.lose("internal error")
            self._consumer.lose("internal error")
            self._stop_if_gone()
        # True unless the loop returns.
        self._has_failed = True
        self._loop.start()
        self._loop.close()


def _parameters(url: str, publish_timeout_s: float) -> pika.URLParameters:
    parameters = pika.URLParameters(url)
    parameters.heartbeat = HEARTBEAT_S
    # RabbitMQ sends no heartbeats to a connection that an alarm blocks. This ends one that nobody waits for.
    parameters.blocked_connection_timeout = publish_timeout_s
    parameters.client_properties = {"connection_name": "inference-server"}
    return parameters
