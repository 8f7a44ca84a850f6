"""One consumer put together, and its loop in the calling thread."""

import logging
import os
import threading
from pathlib import Path

from contract.broker import Broker
from contract.private_client import PrivateClient
from job_consumer.container_spec import Limits
from job_consumer.engine import Engine, EngineUnavailable
from job_consumer.host import Host
from job_consumer.settings import Proof
from job_consumer.worker import Worker
from job_consumer.workspace import WorkDir

logger = logging.getLogger(__name__)

_RETRY_S = 2.0


def run_consumer(
    broker: Broker,
    engine: Engine,
    *,
    api_url: str,
    proof: Proof,
    consumer: str,
    gpu_uuid: str | None,
    accepts_cpu_tasks: bool,
    work_dir: Path,
    limits: Limits,
    stopping: threading.Event,
    alive_file: Path | None = None,
    replica_network: str | None = None,
    replica_slots: int = 0,
) -> None:
    """Work until `stopping` is set; whoever sets it wakes the broker too.

    Replicas are hosted on `replica_network`, at most `replica_slots`; on None, or where the Engine has no such network,
    none are.
    """
    if replica_network is None or not wait_for_network(engine, replica_network, stopping):
        replica_network, replica_slots = None, 0
    with PrivateClient(api_url, proof.secret) as api:
        host = Host(
            consumer=consumer,
            proof=proof,
            gpu_uuid=gpu_uuid,
            own_user=None if os.geteuid() == 0 else f"{os.geteuid()}:{os.getegid()}",
            limits=limits,
            api=api,
            engine=engine,
            work=WorkDir(work_dir, consumer),
            stopping=stopping,
            alive_file=alive_file,
            replica_network=replica_network,
            replica_slots=replica_slots,
        )
        Worker(host, broker, accepts_cpu_tasks=accepts_cpu_tasks).run()


def wait_for_network(engine: Engine, name: str, stopping: threading.Event) -> bool:
    """Whether the Engine has the network of replicas; says what to do where it has not. Waits for the Engine."""
    while not stopping.is_set():
        try:
            found = engine.has_network(name)
        except EngineUnavailable as error:
            logger.warning("whether the network %s is there cannot be known yet: %s", name, error)
            stopping.wait(_RETRY_S)
            continue
        if not found:
            logger.error(
                "this Docker Engine has no network %s, so no replicas are hosted here: create it with "
                "`docker network create --internal %s`, or correct REPLICA_NETWORK, and start this consumer again",
                name,
                name,
            )
        return found
    return False
