"""One consumer put together, and its loop in the calling thread."""

import os
import threading
from pathlib import Path

from contract.broker import Broker
from contract.private_client import PrivateClient
from job_consumer.container_spec import Limits
from job_consumer.engine import Engine
from job_consumer.host import Host
from job_consumer.settings import Proof
from job_consumer.worker import Worker
from job_consumer.workspace import WorkDir


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
) -> None:
    """Work until `stopping` is set; whoever sets it wakes the broker too."""
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
        )
        Worker(host, broker, accepts_cpu_tasks=accepts_cpu_tasks).run()
