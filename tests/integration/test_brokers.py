"""One contract, every broker; then what only RabbitMQ can suffer."""

import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pika
import pytest

from contract.broker import CPU_QUEUE, GPU_QUEUE, Broker, BrokerUnavailable, Delivery, queue_for
from contract.broker.memory import InMemoryBroker
from contract.broker.rabbitmq import RabbitMQBroker
from contract.broker.rabbitmq.topology import DEAD_QUEUE
from tests.services import require_rabbitmq
from tests.tcp_proxy import Mode, TcpProxy
from tests.waiting import wait_until

Connect = Callable[[], Broker]
BOTH = (GPU_QUEUE, CPU_QUEUE)
SOON_S = 0.2
"""How long to look for a message that must not come."""
LATEST_S = 20.0
"""How long to wait for what must come."""


def new_uid() -> str:
    return secrets.token_hex(32)


def receive_one(broker: Broker, *queues: str) -> Delivery:
    delivery = broker.receive(queues or BOTH, LATEST_S)
    assert delivery is not None
    return delivery


def is_usable(broker: Broker) -> bool:
    try:
        broker.check()
    except BrokerUnavailable:
        return False
    return True


def publish_at_last(broker: Broker, uid: str) -> None:
    """Publish as the dispatcher does: again until it is confirmed."""

    def published() -> bool:
        try:
            broker.publish(CPU_QUEUE, uid)
        except BrokerUnavailable:
            return False
        return True

    wait_until(published)


class RabbitMQ:
    """The real broker, seen past the code under test, on queues that nobody else uses."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = f"test-{uuid4().hex[:12]}."
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self._connection.channel()

    def connect(self, url: str | None = None, **options: Any) -> RabbitMQBroker:
        return RabbitMQBroker(url or self.url, prefix=self.prefix, **options)

    def publish(self, queue: str, body: bytes) -> None:
        self.channel.basic_publish("", self.prefix + queue, body)

    def delete_queue(self, queue: str) -> None:
        self.channel.queue_delete(self.prefix + queue)

    def take(self, queue: str) -> bytes | None:
        body: bytes | None = self.channel.basic_get(self.prefix + queue, auto_ack=True)[2]
        return body

    def ready_count(self, queue: str) -> int:
        """How many messages nobody holds."""
        declared = self.channel.queue_declare(self.prefix + queue, passive=True)
        count: int = declared.method.message_count
        return count

    def close(self) -> None:
        for queue in (CPU_QUEUE, GPU_QUEUE, DEAD_QUEUE):
            self.delete_queue(queue)
        self._connection.close()


@pytest.fixture
def rabbitmq() -> Iterator[RabbitMQ]:
    server = RabbitMQ(require_rabbitmq())
    yield server
    server.close()


@pytest.fixture
def proxy(rabbitmq: RabbitMQ) -> Iterator[TcpProxy]:
    with TcpProxy(rabbitmq.url, 5672) as proxy:
        yield proxy


@pytest.fixture(params=["memory", "rabbitmq"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes one more client of one and the same broker."""
    with ExitStack() as clients:
        if request.param == "memory":
            shared = clients.enter_context(InMemoryBroker())
            yield lambda: shared
        else:
            server: RabbitMQ = request.getfixturevalue("rabbitmq")
            yield lambda: clients.enter_context(server.connect())


@pytest.fixture
def broker(connect: Connect) -> Broker:
    return connect()


def test_each_kind_of_task_has_its_queue() -> None:
    assert queue_for(use_gpu=True) == GPU_QUEUE
    assert queue_for(use_gpu=False) == CPU_QUEUE


def test_an_acked_message_is_received_once(broker: Broker) -> None:
    uid = new_uid()
    broker.publish(CPU_QUEUE, uid)
    delivery = receive_one(broker)
    assert delivery.uid == uid
    delivery.ack()
    assert broker.receive(BOTH, SOON_S) is None


def test_a_requeued_message_comes_again_before_later_ones(broker: Broker) -> None:
    first, second = new_uid(), new_uid()
    broker.publish(CPU_QUEUE, first)
    broker.publish(CPU_QUEUE, second)
    receive_one(broker).requeue()
    for uid in (first, second):
        delivery = receive_one(broker)
        assert delivery.uid == uid
        delivery.ack()


def test_a_message_is_settled_only_once(broker: Broker) -> None:
    broker.publish(CPU_QUEUE, new_uid())
    delivery = receive_one(broker)
    delivery.ack()
    delivery.ack()
    delivery.requeue()
    assert broker.receive(BOTH, SOON_S) is None
    broker.check()


def test_the_earlier_queue_is_preferred(broker: Broker) -> None:
    cpu_uid, gpu_uid = new_uid(), new_uid()
    broker.publish(CPU_QUEUE, cpu_uid)
    broker.publish(GPU_QUEUE, gpu_uid)
    for uid in (gpu_uid, cpu_uid):
        delivery = receive_one(broker, GPU_QUEUE, CPU_QUEUE)
        assert delivery.uid == uid
        delivery.ack()


def test_only_the_named_queues_are_received(broker: Broker) -> None:
    broker.publish(GPU_QUEUE, new_uid())
    assert broker.receive([CPU_QUEUE], SOON_S) is None
    receive_one(broker, GPU_QUEUE).ack()


def test_a_receive_that_waits_gets_what_is_published_later(connect: Connect) -> None:
    consumer, publisher = connect(), connect()
    uid = new_uid()
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(receive_one, consumer)
        publisher.publish(GPU_QUEUE, uid)
        assert waiting.result(LATEST_S).uid == uid


@pytest.mark.parametrize("second_queue", BOTH)
def test_no_bell_waits_behind_a_busy_consumer(connect: Connect, second_queue: str) -> None:
    busy, idle, publisher = connect(), connect(), connect()
    first, second, third = new_uid(), new_uid(), new_uid()
    publisher.publish(GPU_QUEUE, first)
    publisher.publish(second_queue, second)
    held = receive_one(busy)
    assert held.uid == first
    publisher.publish(second_queue, third)
    # The busy one runs its task for hours now: it neither settles nor receives.
    received = [receive_one(idle) for _ in range(2)]
    assert {delivery.uid for delivery in received} == {second, third}


def test_many_consumers_share_the_messages_and_lose_none(connect: Connect) -> None:
    uids = [new_uid() for _ in range(200)]
    publisher = connect()

    def drain(consumer: Broker) -> list[str]:
        received = []
        while delivery := consumer.receive(BOTH, 1):
            received.append(delivery.uid)
            delivery.ack()
        return received

    with ThreadPoolExecutor() as threads:
        drains = [threads.submit(drain, connect()) for _ in range(4)]
        for number, uid in enumerate(uids):
            publisher.publish(queue_for(use_gpu=number % 2 == 0), uid)
        received = [uid for each in drains for uid in each.result(60)]
    assert sorted(received) == sorted(uids)


def test_wake_ends_a_receive(broker: Broker) -> None:
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(broker.receive, BOTH, 3600)
        broker.wake()
        assert waiting.result(LATEST_S) is None


def test_wake_takes_nothing_from_the_next_receive_but_its_waiting(broker: Broker) -> None:
    broker.wake()
    uid = new_uid()
    broker.publish(CPU_QUEUE, uid)
    assert broker.receive(BOTH, 3600) is None
    assert receive_one(broker).uid == uid


def test_close_ends_a_receive(broker: Broker) -> None:
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(broker.receive, BOTH, 3600)
        broker.close()
        assert waiting.result(LATEST_S) is None


def test_a_closed_broker_says_so(broker: Broker) -> None:
    broker.publish(CPU_QUEUE, new_uid())
    held = receive_one(broker)
    broker.close()
    broker.close()
    held.ack()
    assert broker.receive(BOTH, 3600) is None
    with pytest.raises(BrokerUnavailable, match="closed"):
        broker.publish(CPU_QUEUE, new_uid())
    with pytest.raises(BrokerUnavailable, match="closed"):
        broker.check()


def test_quorum_queues_ring_as_well(rabbitmq: RabbitMQ) -> None:
    uid = new_uid()
    with rabbitmq.connect(queue_type="quorum") as broker:
        broker.publish(GPU_QUEUE, uid)
        receive_one(broker).requeue()
        assert receive_one(broker).uid == uid


def test_an_unsettled_message_comes_again_when_its_connection_dies(rabbitmq: RabbitMQ, proxy: TcpProxy) -> None:
    uid = new_uid()
    with rabbitmq.connect(proxy.url) as mortal, rabbitmq.connect() as other:
        mortal.publish(CPU_QUEUE, uid)
        held = receive_one(mortal)
        proxy.set_mode(Mode.RESET)
        assert receive_one(other).uid == uid
        held.ack()


def test_settling_a_message_of_a_dead_connection_does_nothing(
    rabbitmq: RabbitMQ, proxy: TcpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    uid = new_uid()
    with rabbitmq.connect(proxy.url) as broker:
        broker.publish(CPU_QUEUE, uid)
        held = receive_one(broker)
        proxy.set_mode(Mode.RESET)
        wait_until(lambda: not is_usable(broker))
        proxy.set_mode(Mode.PASS)
        wait_until(lambda: is_usable(broker))
        held.ack()
        assert receive_one(broker).uid == uid
    assert not [record for record in caplog.records if record.exc_info and record.name.startswith("contract")]


def test_idle_connections_that_are_reset_come_back(rabbitmq: RabbitMQ, proxy: TcpProxy) -> None:
    with rabbitmq.connect(proxy.url) as broker:
        wait_until(lambda: is_usable(broker))
        proxy.set_mode(Mode.RESET)
        proxy.set_mode(Mode.PASS)
        uid = new_uid()
        broker.publish(CPU_QUEUE, uid)
        assert receive_one(broker).uid == uid


def test_a_receive_outlives_a_reset(rabbitmq: RabbitMQ, proxy: TcpProxy) -> None:
    uid = new_uid()
    with rabbitmq.connect(proxy.url) as broker, ThreadPoolExecutor() as threads:
        wait_until(lambda: is_usable(broker))
        waiting = threads.submit(receive_one, broker)
        proxy.set_mode(Mode.RESET)
        wait_until(lambda: not is_usable(broker))
        proxy.set_mode(Mode.PASS)
        publish_at_last(broker, uid)
        assert waiting.result(LATEST_S).uid == uid


def test_a_publish_into_silence_fails_in_time_and_later_ones_work(rabbitmq: RabbitMQ, proxy: TcpProxy) -> None:
    with rabbitmq.connect(proxy.url, publish_timeout_s=0.5) as broker:
        wait_until(lambda: is_usable(broker))
        proxy.set_mode(Mode.BLACKHOLE)
        with pytest.raises(BrokerUnavailable, match="no confirm in"):
            broker.publish(CPU_QUEUE, new_uid())
        wait_until(lambda: not is_usable(broker))
        proxy.set_mode(Mode.PASS)
        uid = new_uid()
        publish_at_last(broker, uid)
        received = set()
        while uid not in received:
            delivery = receive_one(broker)
            received.add(delivery.uid)
            delivery.ack()


def test_a_publish_that_was_under_way_when_the_connection_died_is_repeated(rabbitmq: RabbitMQ, proxy: TcpProxy) -> None:
    uid = new_uid()
    with rabbitmq.connect(proxy.url) as broker, ThreadPoolExecutor() as threads:
        wait_until(lambda: is_usable(broker))
        proxy.set_mode(Mode.BLACKHOLE)
        publishing = threads.submit(broker.publish, CPU_QUEUE, uid)
        with pytest.raises(TimeoutError):
            publishing.result(SOON_S)
        proxy.set_mode(Mode.RESET)
        proxy.set_mode(Mode.PASS)
        publishing.result(LATEST_S)
        assert receive_one(broker).uid == uid


def test_a_receive_into_silence_ends_with_none(rabbitmq: RabbitMQ, proxy: TcpProxy) -> None:
    with rabbitmq.connect(proxy.url) as broker:
        wait_until(lambda: is_usable(broker))
        proxy.set_mode(Mode.BLACKHOLE)
        assert broker.receive(BOTH, SOON_S) is None
        proxy.set_mode(Mode.RESET)


def test_a_broker_may_appear_after_its_clients(rabbitmq: RabbitMQ, proxy: TcpProxy) -> None:
    proxy.set_mode(Mode.REFUSE)
    with rabbitmq.connect(proxy.url, publish_timeout_s=0.3) as broker:
        with pytest.raises(BrokerUnavailable):
            broker.publish(CPU_QUEUE, new_uid())
        with pytest.raises(BrokerUnavailable, match="refused"):
            broker.check()
        began = time.monotonic()
        assert broker.receive(BOTH, SOON_S) is None
        assert time.monotonic() - began >= SOON_S, "a caller's loop would spin"
        broker.wake()
        assert broker.receive(BOTH, 3600) is None
        proxy.set_mode(Mode.PASS)
        wait_until(lambda: is_usable(broker))
        uid = new_uid()
        broker.publish(CPU_QUEUE, uid)
        assert receive_one(broker).uid == uid


def test_a_loop_that_failed_for_a_reason_nobody_foresaw_connects_again(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("a frame of no kind")

    uid = new_uid()
    with rabbitmq.connect() as broker:
        wait_until(lambda: is_usable(broker))
        broker._post(fail)
        wait_until(lambda: not is_usable(broker))
        wait_until(lambda: is_usable(broker))
        broker.publish(CPU_QUEUE, uid)
        assert receive_one(broker).uid == uid
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [
        "the thread rabbitmq failed; it is repeated in 1 s"
    ]


def test_a_queue_deleted_under_a_publisher_is_declared_again(rabbitmq: RabbitMQ) -> None:
    uid = new_uid()
    with rabbitmq.connect() as broker:
        wait_until(lambda: is_usable(broker))
        rabbitmq.delete_queue(CPU_QUEUE)
        broker.publish(CPU_QUEUE, uid)
        assert receive_one(broker).uid == uid


def test_a_queue_deleted_under_a_receive_is_declared_again(rabbitmq: RabbitMQ) -> None:
    uid = new_uid()
    with rabbitmq.connect() as consumer, rabbitmq.connect() as publisher, ThreadPoolExecutor() as threads:
        wait_until(lambda: is_usable(consumer) and is_usable(publisher))
        waiting = threads.submit(receive_one, consumer)
        rabbitmq.delete_queue(GPU_QUEUE)
        publisher.publish(GPU_QUEUE, uid)
        assert waiting.result(LATEST_S).uid == uid


def test_a_queue_with_other_arguments_is_named(rabbitmq: RabbitMQ) -> None:
    name = rabbitmq.prefix + CPU_QUEUE
    rabbitmq.channel.queue_declare(name, durable=True)
    with rabbitmq.connect() as broker:

        def names_the_queue() -> bool:
            try:
                broker.check()
            except BrokerUnavailable as error:
                return name in str(error) and "delete_queue" in str(error)
            return False

        wait_until(names_the_queue)
        rabbitmq.delete_queue(CPU_QUEUE)
        wait_until(lambda: is_usable(broker))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\x00poison", id="binary"),
        pytest.param(b"a" * 63, id="short"),
        pytest.param(b"a" * 64 + b"\n", id="newline"),
        pytest.param(b"x" * 1024**2, id="1MiB"),
    ],
)
def test_a_body_that_names_no_task_is_put_aside(
    rabbitmq: RabbitMQ, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    uid = new_uid()
    with rabbitmq.connect() as broker:
        wait_until(lambda: is_usable(broker))
        rabbitmq.publish(CPU_QUEUE, body)
        wait_until(lambda: rabbitmq.ready_count(CPU_QUEUE) == 1)
        broker.publish(CPU_QUEUE, uid)
        assert receive_one(broker).uid == uid
        wait_until(lambda: rabbitmq.ready_count(DEAD_QUEUE) == 1)
    assert rabbitmq.take(DEAD_QUEUE) == body
    assert f"{len(body)} bytes" in caplog.text
    assert "poison" not in caplog.text


def test_messages_are_written_to_disk(rabbitmq: RabbitMQ) -> None:
    with rabbitmq.connect() as broker:
        broker.publish(CPU_QUEUE, new_uid())
    _, properties, _ = rabbitmq.channel.basic_get(rabbitmq.prefix + CPU_QUEUE)
    assert properties.delivery_mode == pika.DeliveryMode.Persistent.value
