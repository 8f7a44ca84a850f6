"""One consumer put together, and its loop in the calling thread."""

import logging
import os
import secrets
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from contract.broker import Broker
from contract.errors import Conflict
from contract.private_client import PrivateClient
from contract.registration import Registered
from contract.schemas import ConsumerRegistration
from job_consumer.bells import until_it_works
from job_consumer.container_spec import Limits, Sandbox
from job_consumer.context import ConsumerContext
from job_consumer.engine_watch import watched_engine
from job_consumer.engines import Engine, EngineUnavailable, ReplicaEngine
from job_consumer.gpu_gate import GpuGate
from job_consumer.gpu_health import GpuHealth
from job_consumer.health import FIRST_PAUSE_S, Check, Health, WorkDisk
from job_consumer.image_lookups import ImageLookups
from job_consumer.locks import LockTaken
from job_consumer.reconcile import end_runs
from job_consumer.settings import IMAGE_CACHE_BYTES, MIN_FREE_BYTES, MODEL_CACHE_BYTES, Credential
from job_consumer.worker import Worker
from job_consumer.workspace import WorkDir

logger = logging.getLogger(__name__)

_RETRY_S = 2.0
_NO_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade=false"


@dataclass(frozen=True)
class ConsumerOptions:
    """How one consumer runs: what its settings, or a standalone server, decided."""

    api_url: str
    credential: Credential
    consumer: str
    """Its name, which outlives its restarts."""
    work_dir: Path
    limits: Limits
    model_cache_bytes: int = MODEL_CACHE_BYTES
    """How much the models' folders may take of the disk together."""
    image_cache_bytes: int = IMAGE_CACHE_BYTES
    """How much pulled images may take of the engine's disk together."""
    gpu_uuid: str | None = None
    accepts_cpu_tasks: bool = True
    alive_file: Path | None = None
    """For container health checks; see `ConsumerContext.alive_file`."""
    engine_patience_s: float | None = None
    """An engine that refuses connections for so long makes the consumer end; with None it waits for ever."""
    replica_network: str | None = None
    """The engine's network that replicas are on. With None, or if it does not suit, no replicas are hosted."""
    replica_slots: int = 0
    """At most this many replicas at once."""
    replica_publish_address: str | None = None
    """The address of this host that gateways reach replicas at; None if they reach the network itself."""
    min_free_bytes: int = MIN_FREE_BYTES
    """With less free on the disk of the work folder, nothing is claimed."""
    first_pause_s: float = FIRST_PAUSE_S
    """After tasks in a row that failed here; doubled with each further one."""


def run_consumer(
    options: ConsumerOptions,
    broker: Broker,
    engine: Engine,
    stopping: threading.Event,
    *,
    replica_engine: ReplicaEngine | None = None,
    for_good: threading.Event | None = None,
) -> None:
    """Work until `stopping` is set; whoever sets it wakes the broker too. Raises `LockTaken` and `EngineGone`.

    What runs then is left to the next start, unless `for_good` is set as well: then it is ended. `replica_engine` is
    the same engine if it can host replicas.
    """

    def give_up() -> None:
        if options.alive_file is not None:
            options.alive_file.unlink(missing_ok=True)
        stopping.set()
        broker.wake()

    with watched_engine(engine, options.engine_patience_s, give_up) as engine_is_gone:
        if replica_engine is not None and not _can_host(options, replica_engine, stopping):
            replica_engine = None
        sandbox = Sandbox(
            consumer=options.consumer,
            limits=options.limits,
            gpu_uuid=options.gpu_uuid,
            own_user=own_user(),
            network=options.replica_network if replica_engine else None,
            publish_address=options.replica_publish_address,
        )
        registration = ConsumerRegistration(
            process=secrets.token_hex(8),
            consumer=options.consumer,
            gpu_uuid=options.gpu_uuid,
            accepts_cpu_tasks=options.accepts_cpu_tasks,
            replica_slots=options.replica_slots if replica_engine else 0,
            looks_up_images=True,
        )
        gpu = GpuGate()
        with PrivateClient(options.api_url, options.credential.secret) as api:
            context = ConsumerContext(
                credential=options.credential,
                sandbox=sandbox,
                api=api,
                engine=engine,
                work=WorkDir(options.work_dir, options.consumer),
                stopping=stopping,
                gpu=gpu,
                health=_health(options, engine, gpu, stopping),
                model_cache_bytes=options.model_cache_bytes,
                image_cache_bytes=options.image_cache_bytes,
                alive_file=options.alive_file,
                engine_is_gone=engine_is_gone,
            )
            if (server := register(context, registration)) is not None:
                context = replace(context, sandbox=replace(sandbox, server=server))
                lookups = PrivateClient(options.api_url, options.credential.secret)
                with ImageLookups(options.consumer, engine, lookups):
                    Worker(context, broker, registration, replica_engine).run()
                if for_good is not None and for_good.is_set():
                    end_runs(context.engine, context.work, context.consumer)


def register(context: ConsumerContext, registration: ConsumerRegistration) -> str | None:
    """Tell the private API of this consumer, as soon as it answers; its id, or None if the consumer is to stop.

    Raises `LockTaken` if a living consumer of any host has our GPU.
    """
    answers: list[Registered] = []

    def ask() -> None:
        try:
            answers.append(context.api.register(registration))
        except Conflict as error:
            raise LockTaken(error.detail) from error

    until_it_works(context, "register", ask)
    return answers[0].server_id if answers else None


def _health(options: ConsumerOptions, engine: Engine, gate: GpuGate, stopping: threading.Event) -> Health:
    disk = WorkDisk(options.work_dir, options.min_free_bytes)

    def check_engine() -> str | None:
        try:
            engine.check()
        except EngineUnavailable as error:
            return str(error)
        return None

    checks: list[Check] = [disk.check, check_engine]
    if options.gpu_uuid is not None:
        checks.append(GpuHealth(options.gpu_uuid, gate.is_occupied, stopping).check)
    return Health(options.consumer, checks, disk.free_bytes, first_pause_s=options.first_pause_s)


def own_user() -> str | None:
    """The user of this process, `uid:gid`, unless it is root: see `Sandbox.own_user`."""
    return None if os.geteuid() == 0 else f"{os.geteuid()}:{os.getegid()}"


def _can_host(options: ConsumerOptions, engine: ReplicaEngine, stopping: threading.Event) -> bool:
    publishes = options.replica_publish_address is not None
    return options.replica_network is not None and wait_for_network(
        engine, options.replica_network, stopping, publishes=publishes
    )


def wait_for_network(engine: ReplicaEngine, name: str, stopping: threading.Event, *, publishes: bool) -> bool:
    """Whether the engine has a network that suits replicas; logs what to do if not. Waits for the engine to answer."""
    while not stopping.is_set():
        try:
            network = engine.find_network(name)
        except EngineUnavailable as error:
            logger.warning(
                "the engine does not say yet whether it has the network %s; it is asked again: %s", name, error
            )
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
                "the network %s is internal and publishes no ports, so no replicas are hosted here: remove it and "
                "create it with `docker network create --opt %s %s`, or unset REPLICA_PUBLISH_ADDRESS, and start this "
                "consumer again",
                name,
                _NO_MASQUERADE,
                name,
            )
        return network is not None and not (publishes and network.is_internal)
    return False
