"""The services wired together. The same code as in Compose; only the collaborators that are built here differ."""

import fcntl
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from contract.access import DoorPolicy
from contract.http_server import serve_in_thread
from contract.memory_broker import InMemoryBroker
from job_consumer.container_spec import Limits
from job_consumer.docker_engine import DockerEngine
from job_consumer.engine import EngineUnavailable
from job_consumer.gpu_check import check_gpu
from job_consumer.process_engine import ProcessEngine
from job_consumer.service import run_consumer
from job_consumer.settings import Proof
from private_api.service import private_api_service
from private_api.tasks.claim import SizeLimits
from public_api.app import create_app

logger = logging.getLogger(__name__)

MIB = 1024**2
GIB = 1024**3
EngineName = Literal["auto", "docker", "process"]
REPLICA_NETWORK = "inference-server-replicas"
"""Made where it is missing, and left: another standalone server of this host may use it."""
REPLICA_SLOTS = 8
_STOP_S = 20


class DataDirInUseError(Exception):
    """Another standalone server works in this data folder."""


@dataclass(frozen=True)
class Options:
    """How one standalone server runs."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    engine: EngineName = "auto"
    gpu_uuid: str | None = None
    require_api_key: bool = False
    keep_finished_for: timedelta = timedelta(days=30)
    max_upload_bytes: int = 32 * GIB


@dataclass(frozen=True)
class Server:
    """A running standalone server."""

    url: str
    engine: str


@contextmanager
def standalone_server(options: Options) -> Iterator[Server]:
    """Run every service while the block is open.

    Raises `GpuMissing`, `DataDirInUseError`, `EngineUnavailable` when Docker was asked for and does not answer,
    `OSError` when the port cannot be had.
    """
    if options.gpu_uuid is not None:
        check_gpu(options.gpu_uuid)
    data_dir = options.data_dir.absolute()
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = secrets.token_urlsafe(32)
    with ExitStack() as stack:
        stack.enter_context(_exclusive(data_dir))
        work_dir = data_dir / "work"
        engine, description = _pick_engine(options.engine, work_dir)
        stack.callback(engine.close)
        broker = stack.enter_context(InMemoryBroker())
        private_app = stack.enter_context(
            private_api_service(
                broker,
                database_url=f"sqlite:///{data_dir / 'inference.db'}",
                data_dir=data_dir,
                service_token=token,
                max_upload_bytes=options.max_upload_bytes,
                sizes=SizeLimits(max_unpacked_bytes=128 * GIB, max_output_bytes=32 * GIB),
                keep_finished_for=options.keep_finished_for,
                unschedulable_after=timedelta(hours=24),
                allow_process_models=isinstance(engine, ProcessEngine),
            )
        )
        private_port = stack.enter_context(serve_in_thread(private_app, "127.0.0.1", 0))
        private_url = f"http://127.0.0.1:{private_port}"
        # In the open mode whoever reaches the port may do everything, as on one's own machine it should be.
        policy = DoorPolicy(requires_key=options.require_api_key, opens_models=not options.require_api_key)
        public_app = create_app(private_url=private_url, service_token=token, policy=policy)
        port = stack.enter_context(serve_in_thread(public_app, options.host, options.port))
        stopping = threading.Event()
        consumer = threading.Thread(
            target=run_consumer,
            args=(broker, engine),
            kwargs={
                "api_url": private_url,
                "proof": Proof("SERVICE_TOKEN", token),
                "consumer": _consumer_name(data_dir),
                "gpu_uuid": options.gpu_uuid,
                "accepts_cpu_tasks": True,
                "work_dir": work_dir,
                "limits": _host_limits(),
                "stopping": stopping,
                "replica_network": _replica_network(engine),
                "replica_slots": REPLICA_SLOTS,
            },
            name="consumer",
            daemon=True,
        )
        consumer.start()

        @stack.callback
        def stop_consumer() -> None:
            stopping.set()
            broker.wake()
            consumer.join(_STOP_S)

        yield Server(f"http://{options.host}:{port}", description)


def _pick_engine(name: EngineName, work_dir: Path) -> tuple[DockerEngine | ProcessEngine, str]:
    if name != "process":
        docker = DockerEngine(work_dir=work_dir, work_volume=None)
        try:
            return docker, docker.check()
        except EngineUnavailable as error:
            docker.close()
            if name == "docker":
                raise
            logger.warning("no Docker Engine answers, models run as processes (process:<path>): %s", error)
    process = ProcessEngine(work_dir=work_dir)
    return process, process.check()


def _replica_network(engine: DockerEngine | ProcessEngine) -> str | None:
    """Where models that are kept warm are reached; None where they cannot be."""
    if isinstance(engine, ProcessEngine):
        return None
    try:
        engine.make_network(REPLICA_NETWORK)
    except EngineUnavailable as error:
        logger.warning("no model is kept warm here, the network %s cannot be made: %s", REPLICA_NETWORK, error)
        return None
    return REPLICA_NETWORK


@contextmanager
def _exclusive(data_dir: Path) -> Iterator[None]:
    with (data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataDirInUseError(
                f"another standalone server works in {data_dir}; stop it or pick another"
            ) from error
        yield


def _consumer_name(data_dir: Path) -> str:
    """Kept in the data folder: by it this server's next start finds its own containers, and no other's."""
    path = data_dir / "consumer-name"
    if not path.exists():
        path.write_text(f"standalone-{secrets.token_hex(4)}")
    return path.read_text().strip()


def _host_limits() -> Limits:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Limits(
        memory_bytes=max(512 * MIB, memory * 3 // 4),
        cpus=None,
        pids=1024,
        shared_memory_bytes=1 * GIB,
        temporary_bytes=1 * GIB,
        log_bytes=32 * MIB,
    )
