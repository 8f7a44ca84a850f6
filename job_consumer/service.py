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
_NO_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade=false"


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
    replica_publish_address: str | None = None,
) -> None:
    """Work until `stopping` is set; whoever sets it wakes the broker too.

    Replicas are hosted on `replica_network`, at most `replica_slots`, and published at `replica_publish_address`. On
    None, or where the Engine has no such network or it does not do, none are hosted.
    """
    publishes = replica_publish_address is not None
    if replica_network is None or not wait_for_network(engine, replica_network, stopping, publishes=publishes):
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
            replica_publish_address=replica_publish_address,
        )
        Worker(host, broker, accepts_cpu_tasks=accepts_cpu_tasks).run()


def wait_for_network(engine: Engine, name: str, stopping: threading.Event, *, publishes: bool) -> bool:
    """Whether the Engine has a network that does for replicas; says what to do where not. Waits for the Engine."""
    while not stopping.is_set():
        try:
            network = engine.find_network(name)
        except EngineUnavailable as error:
            logger.warning("whether the network %s is there cannot be known yet: %s", name, error)
            stopping.wait(_RETRY_S)
            continue
        if network is None:
            logger.error(
                "this Docker Engine has no network %s, so no replicas are hosted here: create it with "
                "`docker network create %s%s`, or correct REPLICA_NETWORK, and start this consumer again",
                name,
                f"--opt {_NO_MASQUERADE} " if publishes else "--internal ",
                name,
            )
        elif publishes and network.is_internal:
            logger.error(
                "the network %s is internal and publishes no ports, so no replicas are hosted here: make it anew with "
                "`docker network create --opt %s %s`, or unset REPLICA_PUBLISH_ADDRESS, and start this consumer again",
                name,
                _NO_MASQUERADE,
                name,
            )
        return network is not None and not (publishes and network.is_internal)
    return False
