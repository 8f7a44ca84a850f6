"""`python -m job_consumer`: one consumer as a process of its own."""

import logging
import sys
import threading

from contract.broker import Broker
from contract.rabbitmq_broker import RabbitMQBroker
from contract.service_start import start_service
from contract.signals import stop_event
from job_consumer.container_spec import Limits
from job_consumer.docker_engine import DockerEngine
from job_consumer.gpu_check import GpuMissing, check_gpu
from job_consumer.service import run_consumer
from job_consumer.settings import JobConsumerSettings
from job_consumer.slots import SlotTaken, hold_slots

logger = logging.getLogger(__name__)


def main() -> int:
    """Run until a signal. Returns the exit code.

    2 for faulty settings, 3 where another consumer has our place, 4 where our GPU is not on this host.
    """
    return start_service("job-consumer", JobConsumerSettings, _run)


def _run(settings: JobConsumerSettings) -> int:
    try:
        if settings.gpu_uuid is not None:
            check_gpu(settings.gpu_uuid)
        with hold_slots(settings.work_dir, settings.consumer_name, settings.gpu_uuid):
            _work(settings)
    except (SlotTaken, GpuMissing) as error:
        logger.error("consumer=%s does not start: %s", settings.consumer_name, error)
        return 3 if isinstance(error, SlotTaken) else 4
    return 0


def _work(settings: JobConsumerSettings) -> None:
    stopping = stop_event()
    engine = DockerEngine(work_dir=settings.work_dir, work_volume=settings.work_volume)
    with RabbitMQBroker(settings.broker_url, queue_type=settings.rabbit_queue_type) as broker:
        threading.Thread(target=_wake_at_stop, args=(stopping, broker), name="waker", daemon=True).start()
        run_consumer(
            broker,
            engine,
            api_url=settings.private_api_url,
            proof=settings.proof,
            consumer=settings.consumer_name,
            gpu_uuid=settings.gpu_uuid,
            accepts_cpu_tasks=settings.accepts_cpu_tasks,
            work_dir=settings.work_dir,
            limits=Limits(
                memory_bytes=settings.memory_limit_bytes,
                cpus=settings.cpu_limit,
                pids=settings.pids_limit,
                shared_memory_bytes=settings.shared_memory_bytes,
                temporary_bytes=settings.temporary_bytes,
                log_bytes=settings.container_log_bytes,
            ),
            stopping=stopping,
            alive_file=settings.alive_file,
            replica_network=settings.replica_network,
            replica_slots=settings.replica_slots,
            replica_publish_address=settings.publish_address,
        )
    engine.close()


def _wake_at_stop(stopping: threading.Event, broker: Broker) -> None:
    """The worker may be waiting inside the broker when the signal comes."""
    stopping.wait()
    broker.wake()


if __name__ == "__main__":
    sys.exit(main())
