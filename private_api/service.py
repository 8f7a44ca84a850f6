"""One private API put together: its collaborators are built here, its loops run while the block is open."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI

from contract.broker import Broker
from kit.disk import DISK_RESERVE_BYTES
from kit.loop import Loop
from private_api.app import create_app
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.deployments.replicas import Hosting
from private_api.disk_space import Ballast
from private_api.feed import feed
from private_api.keys import EndedKeys
from private_api.lanes import Lane
from private_api.loops import endings, janitor, linker, orphans, reaper, scaler, scrub
from private_api.loops.dispatcher import Dispatcher
from private_api.migrate import await_migrated
from private_api.quotas.limits import NO_LIMITS, Limits
from private_api.quotas.running import note_default
from private_api.services import Services
from private_api.settings import KEEP_RECORDS_FOR, YIELD_AFTER
from private_api.task_logs import TaskLogs
from private_api.tasks.limits import SizeLimits
from private_api.watch import DEPLOYMENTS, FEED, TaskWatch

_DISPATCH_S = 1.0
"""How often the dispatcher looks at the outbox when nobody wakes it: for bells that come due later."""
_HOLDERS_WIDTH = 8
"""Calls of consumers that run at once; a heartbeat takes some milliseconds."""


@dataclass(frozen=True)
class PrivateApiOptions:
    """What one private API needs to know."""

    database_url: str = field(repr=False)
    data_dir: Path
    service_token: str = field(repr=False)
    max_upload_bytes: int
    sizes: SizeLimits
    keep_finished_for: timedelta
    unschedulable_after: timedelta
    """How long a task waits while no consumer that could run it is seen, before it fails."""
    keep_records_for: timedelta = KEEP_RECORDS_FOR
    allow_process_models: bool = False
    allowed_images: tuple[str, ...] = ()
    model_runtimes: tuple[str, ...] = ()
    """Patterns of the images that models may be registered with; empty: any."""
    gateway_address: str = "grpc-gateway:9002"
    """`host:port` at which containers of replicas reach the gRPC gateway; empty without one."""
    domain: str = "localhost"
    """The name clients use for the server."""
    yield_after: timedelta = YIELD_AFTER
    """How long GPU tasks wait before a replica with calls leaves its GPU to them."""
    disk_reserve_bytes: int = DISK_RESERVE_BYTES
    """What uploads and logs leave free on the disk of `data_dir`."""
    quotas: Limits = field(default_factory=lambda: NO_LIMITS)
    """What limits an owner whose key has no limits of its own."""


@contextmanager
def private_api_service(broker: Broker, options: PrivateApiOptions) -> Iterator[FastAPI]:
    """Migrate the database, start the loops, yield the app; stop them in the reverse order."""
    ballast = Ballast(options.data_dir / "ballast", options.disk_reserve_bytes)
    ballast.trim()
    database = Database(options.database_url, before_write=ballast.trim)
    holders = Lane(options.database_url, width=_HOLDERS_WIDTH, before_write=ballast.trim)
    try:
        await_migrated(database)
        note_default(database, options.quotas)
        store = ArchiveStore(options.data_dir / "archives", reserve_bytes=options.disk_reserve_bytes)
        logs = TaskLogs(options.data_dir / "logs", reserve_bytes=options.disk_reserve_bytes)
        watch = TaskWatch()
        events = feed.Feed(database, on_look=lambda: watch.notify(FEED))
        looking = Loop("feed", events.step, interval_s=feed.INTERVAL_S)
        loops = _build_loops(broker, database, options, store=store, logs=logs, watch=watch)
        services = Services(
            database=database,
            holders=holders,
            store=store,
            logs=logs,
            watch=watch,
            broker=broker,
            ring=loops.dispatcher.wake,
            sweep=loops.janitor.wake,
            scale=loops.scaler.wake,
            ended_keys=EndedKeys(database),
            feed=events,
            look=looking.wake,
            sizes=options.sizes,
            max_upload_bytes=options.max_upload_bytes,
            allow_process_models=options.allow_process_models,
            allowed_images=options.allowed_images,
            model_runtimes=options.model_runtimes,
            hosting=Hosting(
                options.service_token,
                options.gateway_address,
                options.sizes.max_unpacked_bytes,
                options.sizes.max_entries,
            ),
            domain=options.domain,
            yield_after=options.yield_after,
            quotas=options.quotas,
        )
        with _started(loops), looking:
            yield create_app(services, service_token=options.service_token)
    finally:
        holders.close()
        database.close()


@dataclass(frozen=True)
class _Loops:
    """In the order in which they start."""

    dispatcher: Loop
    reaper: Loop
    endings: Loop
    janitor: Loop
    orphans: Loop
    scrub: Loop
    scaler: Loop
    linker: Loop


@contextmanager
def _started(loops: _Loops) -> Iterator[None]:
    with ExitStack() as stack:
        for each in fields(loops):
            stack.enter_context(getattr(loops, each.name))
        yield


def _build_loops(
    broker: Broker,
    database: Database,
    options: PrivateApiOptions,
    *,
    store: ArchiveStore,
    logs: TaskLogs,
    watch: TaskWatch,
) -> _Loops:
    dispatching = Loop("dispatcher", Dispatcher(database, broker).step, interval_s=_DISPATCH_S)

    def on_scaled() -> None:
        dispatching.wake()
        watch.notify(DEPLOYMENTS)

    reaping = reaper.Reaper(database, patience=options.unschedulable_after, on_change=watch.notify)
    cleaning = janitor.Janitor(
        database,
        store,
        logs,
        keep_finished_for=options.keep_finished_for,
        keep_records_for=options.keep_records_for,
    )

    def clean() -> None:
        cleaning.step()
        if cleaning.is_behind:
            janitor_loop.wake()

    janitor_loop = Loop("janitor", clean, interval_s=janitor.INTERVAL_S)
    scrubbing = scrub.Scrub(database, store)
    scaling = scaler.Scaler(database, yield_after=options.yield_after, on_change=on_scaled)
    return _Loops(
        dispatcher=dispatching,
        reaper=Loop("reaper", reaping.step, interval_s=reaper.INTERVAL_S),
        endings=Loop("endings", endings.Endings(database, watch).step, interval_s=endings.INTERVAL_S),
        janitor=janitor_loop,
        orphans=Loop("orphans", orphans.Orphans(database, store, logs).step, interval_s=orphans.INTERVAL_S),
        scrub=Loop("scrub", scrubbing.step, interval_s=scrub.INTERVAL_S),
        scaler=Loop("scaler", scaling.step, interval_s=scaler.INTERVAL_S),
        linker=Loop("linker", linker.Linker(database).step, interval_s=linker.INTERVAL_S),
    )
