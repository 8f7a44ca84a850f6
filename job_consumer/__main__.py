"""`python -m job_consumer`: one consumer as a process of its own."""

import logging
import sys
import threading

from contract.broker import Broker
from contract.broker.rabbitmq import RabbitMQBroker
from job_consumer.container_spec import limits_of
from job_consumer.engine_watch import EngineGone
from job_consumer.engines.docker.engine import DockerEngine
from job_consumer.gpu_check import GpuMissing, check_gpu
from job_consumer.locks import LockTaken, hold_locks
from job_consumer.service import ConsumerOptions, run_consumer
from job_consumer.settings import JobConsumerSettings
from kit.service_start import start_service
from kit.signals import stop_event
from kit.threads import SupervisedThread

logger = logging.getLogger(__name__)

ENGINE_PATIENCE_S = 60.0


def main() -> int:
    """Run until a signal. Returns the exit code.

    2 for faulty settings, 3 if another consumer has our name or GPU, 4 if our GPU is not on this host, 5 if the
    Docker Engine has refused connections for a minute.
    """
    return start_service("job-consumer", JobConsumerSettings, _run)


def _run(settings: JobConsumerSettings) -> int:
    try:
        if settings.gpu_uuid is not None:
            check_gpu(settings.gpu_uuid)
        with hold_locks(settings.work_dir, settings.consumer_name, settings.gpu_uuid):
            _work(settings)
    except (LockTaken, GpuMissing) as error:
        logger.error("consumer=%s does not start: %s", settings.consumer_name, error)
        return 3 if isinstance(error, LockTaken) else 4
    except EngineGone:
        return 5
    return 0


def _work(settings: JobConsumerSettings) -> None:
    stopping = stop_event()
    engine = DockerEngine(
        work_dir=settings.work_dir,
        work_volume=settings.work_volume,
        registry_auth_file=settings.registry_auth_file,
        guard_image=settings.replica_guard_image,
    )
    with RabbitMQBroker(settings.broker_url, queue_type=settings.rabbit_queue_type) as broker:
        wake_at_stop(stopping, broker).start()
        run_consumer(consumer_options(settings), broker, engine, stopping, replica_engine=engine)
    engine.close()


def consumer_options(settings: JobConsumerSettings) -> ConsumerOptions:
    """What the settings say of the consumer itself; the rest is about its broker, its engine and its log."""
    return ConsumerOptions(
        api_url=settings.private_api_url,
        credential=settings.credential,
        consumer=settings.consumer_name,
        work_dir=settings.work_dir,
        limits=limits_of(settings),
        model_cache_bytes=settings.model_cache_bytes,
        image_cache_bytes=settings.image_cache_bytes,
        gpu_uuid=settings.gpu_uuid,
        accepts_cpu_tasks=settings.accepts_cpu_tasks,
        min_free_bytes=settings.min_free_bytes,
        alive_file=settings.alive_file,
        engine_patience_s=ENGINE_PATIENCE_S,
        replica_network=settings.replica_network,
        replica_slots=settings.replica_slots,
        replica_publish_address=settings.publish_address,
    )


def wake_at_stop(stopping: threading.Event, broker: Broker) -> SupervisedThread:
    """The thread that wakes the worker, which may be waiting inside the broker when the signal comes."""

    def wake() -> None:
        stopping.wait()
        broker.wake()

    return SupervisedThread("waker", wake, pause_s=0.2)


if __name__ == "__main__":
    sys.exit(main())
