"""The queues as every service declares them: two declarations that differ close a channel."""

from dataclasses import dataclass
from typing import Any, Literal

from contract.broker import MAX_WAITING, QUEUES

DEAD_QUEUE = "tasks.dead"
"""Messages whose body is no uid, kept for the operator."""

QueueType = Literal["classic", "quorum"]


@dataclass(frozen=True)
class Topology:
    """Durable queues of one type, with one prefix before their names."""

    queue_type: QueueType
    prefix: str

    def name(self, queue: str) -> str:
        """What RabbitMQ calls the queue."""
        return self.prefix + queue

    def declare(self, channel: Any) -> None:
        """Declare every queue without waiting; one that exists with other arguments closes the channel."""
        for queue in QUEUES:
            channel.queue_declare(self.name(queue), durable=True, arguments=self._bell_arguments())
        channel.queue_declare(self.name(DEAD_QUEUE), durable=True, arguments=self._dead_arguments())

    def _bell_arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "x-queue-type": self.queue_type,
            # Five minutes: by then the consumers' own polls have long found the task.
            "x-message-ttl": 300_000,
            "x-max-length": MAX_WAITING,
            "x-overflow": "drop-head",
            # No x-dead-letter-exchange: it would also take every expired and every overflowing bell, and hide among
            # them the rare message that somebody must look at. Those few are published to DEAD_QUEUE instead.
        }
        if self.queue_type == "quorum":
            # RabbitMQ 4 drops a message after 20 returns by default, and bells are returned routinely.
            arguments["x-delivery-limit"] = 1_000_000
        return arguments

    def _dead_arguments(self) -> dict[str, Any]:
        return {
            "x-queue-type": self.queue_type,
            "x-max-length": 1000,
            "x-max-length-bytes": 64 * 1024**2,
            "x-overflow": "drop-head",
        }
