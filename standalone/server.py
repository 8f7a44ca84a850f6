"""Wires the services together. Their code is the same as in Compose; only the collaborators built here differ."""

import fcntl
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

from contract.access import DoorPolicy
from contract.broker.memory import InMemoryBroker
from job_consumer.container_spec import Limits
from job_consumer.engines import EngineUnavailable
from job_consumer.engines.docker.engine import DockerEngine
from job_consumer.engines.process.engine import ProcessEngine
from job_consumer.gpu_check import check_gpu
from job_consumer.service import ConsumerOptions, run_consumer
from job_consumer.settings import Credential
from kit.disk import DISK_RESERVE_BYTES
from kit.http_server import serve_in_thread
from kit.memory import tune_memory
from kit.threads import SupervisedThread
from private_api.service import PrivateApiOptions, private_api_service
from private_api.tasks.limits import SizeLimits
from public_api.app import create_app
from standalone.grpc_door import DEFAULT_PORT, GrpcDoor, open_door, plan_door
from standalone.processes import WITHOUT_DOCKER, process_warning

logger = logging.getLogger(__name__)

MIB = 1024**2
GIB = 1024**3
EngineName = Literal["docker", "process"]
REPLICA_NETWORK = "inference-server-replicas"
"""Made if it is missing, and never removed: another standalone server of this host may use it."""
REPLICA_SLOTS = 8
_STOP_S = 40


class DataDirInUseError(Exception):
    """Another standalone server works in this data folder."""


@dataclass(frozen=True)
class Options:
    """How one standalone server runs: what its command line, or a test, asked for."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = DEFAULT_PORT
    """0 picks a free port; None means no gRPC door."""
    engine: EngineName = "docker"
    readable: tuple[Path, ...] = ()
    """What programs without containers may read of this machine, beside the system and this Python."""
    gpu_uuid: str | None = None
    limits: Limits | None = None
    """What one run may take; None is what `host_limits` says."""
    require_api_key: bool = False
    cors_origins: tuple[str, ...] = ()
    """The origins whose pages browsers let use the server."""
    allowed_hosts: tuple[str, ...] = ()
    """The names by which the server is known, beside its machine's."""
    allowed_images: tuple[str, ...] = ()
    """Patterns of the images that models may be registered with; empty: any."""
    model_runtimes: tuple[str, ...] = ()
    """The Engine's runtimes that models may ask for."""
    keep_finished_for: timedelta = timedelta(days=30)
    max_upload_bytes: int = 33 * GIB
    disk_reserve_bytes: int = DISK_RESERVE_BYTES
    """What uploads, logs and runs leave free on the disk of `data_dir`."""


@dataclass(frozen=True)
class Server:
    """Where a running standalone server is reached, and what runs its models."""

    url: str
    engine: str
    grpc: str | None
    """`host:port` of the gRPC door, if there is one."""


@contextmanager
def standalone_server(options: Options, for_good: threading.Event | None = None) -> Iterator[Server]:
    """Run every service while the block is open. If `for_good` is set when it closes, no container is left running.

    Raises `GpuMissing`, `DataDirInUseError`, `EngineUnavailable` if the engine that was asked for does not answer, and
    `OSError` if a port is taken.
    """
    tune_memory()
    if options.gpu_uuid is not None:
        check_gpu(options.gpu_uuid)
    data_dir = options.data_dir.absolute()
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with ExitStack() as stack:
        stack.enter_context(_exclusive(data_dir))
        work_dir = data_dir / "work"
        # Kept: replicas outlive this process, and the tokens they show at the gRPC door are signed with it.
        token = _kept(data_dir / "service-token", lambda: secrets.token_urlsafe(32))
        consumer_name = _kept(data_dir / "consumer-name", lambda: f"standalone-{secrets.token_hex(4)}")
        engine, description = _open_engine(options, data_dir)
        stack.callback(engine.close)
        replica_network = _replica_network(engine)
        door = _plan_door(options, engine, replica_network, data_dir / "replica-port")
        broker = stack.enter_context(InMemoryBroker())
        private_app = stack.enter_context(
            private_api_service(broker, _private_api_options(options, data_dir, token, engine, door))
        )
        with kept_free(options.port, options.grpc_port):
            private_port = stack.enter_context(serve_in_thread(private_app, "127.0.0.1", 0))
        private_url = f"http://127.0.0.1:{private_port}"
        # In the open mode whoever reaches the port may do everything, as it should be on one's own machine.
        policy = DoorPolicy(requires_key=options.require_api_key, opens_models=not options.require_api_key)
        public_app = create_app(
            private_url=private_url,
            service_token=token,
            policy=policy,
            cors_origins=options.cors_origins,
            hosts=options.allowed_hosts,
        )
        port = stack.enter_context(serve_in_thread(public_app, options.host, options.port, is_door=True))
        if door is not None:
            stack.enter_context(
                open_door(
                    door,
                    private_url=private_url,
                    service_token=token,
                    name=consumer_name,
                    requires_key=options.require_api_key,
                )
            )
        stack.enter_context(
            consumer_in_thread(
                ConsumerOptions(
                    api_url=private_url,
                    credential=Credential("SERVICE_TOKEN", token),
                    consumer=consumer_name,
                    work_dir=work_dir,
                    limits=replace(options.limits or host_limits(), disk_reserve_bytes=options.disk_reserve_bytes),
                    # Room for a run above what it must leave.
                    min_free_bytes=2 * options.disk_reserve_bytes,
                    gpu_uuid=options.gpu_uuid,
                    replica_network=replica_network,
                    replica_slots=REPLICA_SLOTS,
                ),
                broker,
                engine,
                for_good,
            )
        )
        yield Server(f"http://{options.host}:{port}", description, door.address if door else None)


@contextmanager
def kept_free(*ports: int | None) -> Iterator[None]:
    """Keep the ports that were asked for from being handed out to this process itself, which asks for any port."""
    with ExitStack() as stack:
        for port in filter(None, ports):
            holder = stack.enter_context(socket.socket())
            # Whose it is already is told when it is really taken.
            with suppress(OSError):
                holder.bind(("127.0.0.1", port))
        yield


def _private_api_options(
    options: Options, data_dir: Path, token: str, engine: DockerEngine | ProcessEngine, door: GrpcDoor | None
) -> PrivateApiOptions:
    return PrivateApiOptions(
        database_url=f"sqlite:///{data_dir / 'inference.db'}",
        data_dir=data_dir,
        service_token=token,
        max_upload_bytes=options.max_upload_bytes,
        sizes=SizeLimits(max_unpacked_bytes=128 * GIB, max_output_bytes=32 * GIB),
        keep_finished_for=options.keep_finished_for,
        unschedulable_after=timedelta(hours=24),
        allow_process_models=isinstance(engine, ProcessEngine),
        allowed_images=options.allowed_images,
        model_runtimes=options.model_runtimes,
        gateway_address=door.address_for_replicas if door else "",
        disk_reserve_bytes=options.disk_reserve_bytes,
    )


@contextmanager
def consumer_in_thread(
    options: ConsumerOptions,
    broker: InMemoryBroker,
    engine: DockerEngine | ProcessEngine,
    for_good: threading.Event | None = None,
) -> Iterator[None]:
    """Run a consumer while the block is open; one that fails is started again. `for_good` as for `run_consumer`."""
    stopping = threading.Event()
    replica_engine = engine if isinstance(engine, DockerEngine) else None
    thread = SupervisedThread(
        "consumer",
        lambda: run_consumer(options, broker, engine, stopping, replica_engine=replica_engine, for_good=for_good),
        stopped=stopping,
    )
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        broker.wake()
        thread.join(_STOP_S)


def _open_engine(options: Options, data_dir: Path) -> tuple[DockerEngine | ProcessEngine, str]:
    work_dir = data_dir / "work"
    if options.engine == "process":
        process = ProcessEngine(work_dir=work_dir, readable=options.readable, hidden=[data_dir])
        logger.warning("%s", process_warning(process.walls()))
        return process, process.check()
    docker = DockerEngine(work_dir=work_dir, work_volume=None)
    try:
        return docker, docker.check()
    except EngineUnavailable as error:
        docker.close()
        raise EngineUnavailable(f"{error}\n{WITHOUT_DOCKER}") from error


def _replica_network(engine: DockerEngine | ProcessEngine) -> str | None:
    """The network on which models that are kept warm are reached; None if the engine can have none."""
    if isinstance(engine, ProcessEngine):
        return None
    try:
        engine.make_network(REPLICA_NETWORK)
    except EngineUnavailable as error:
        logger.warning(
            "no model is kept warm here, because the network %s cannot be made; repair Docker and start again: %s",
            REPLICA_NETWORK,
            error,
        )
        return None
    return REPLICA_NETWORK


def _plan_door(
    options: Options, engine: DockerEngine | ProcessEngine, replica_network: str | None, port_file: Path
) -> GrpcDoor | None:
    if options.grpc_port is None:
        return None
    if replica_network is None or isinstance(engine, ProcessEngine):
        logger.info("no gRPC door: it leads to containers that are kept warm, and there are none here")
        return None
    return plan_door(options.host, options.grpc_port, engine.network_host(replica_network), port_file)


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


def _kept(path: Path, make: Callable[[], str]) -> str:
    """The content of a file that the first start makes. By it later starts and their containers find each other."""
    if not path.exists() or not path.read_text().strip():
        path.touch(mode=0o600)
        path.write_text(make())
    return path.read_text().strip()


def host_limits(
    memory_bytes: int | None = None,
    shared_memory_bytes: int | None = None,
    temporary_bytes: int | None = None,
    *,
    pids: int | None = None,
    cpus: float | None = None,
) -> Limits:
    """What one run may take of this machine; by default three quarters of its memory, and all its cores."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Limits(
        memory_bytes=memory_bytes or max(512 * MIB, memory * 3 // 4),
        cpus=cpus,
        pids=pids or 1024,
        shared_memory_bytes=shared_memory_bytes or GIB,
        temporary_bytes=temporary_bytes or GIB,
        log_bytes=32 * MIB,
    )
