"""One private API put together: its collaborators are built here, its loops run while the block is open."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI

from contract.broker import Broker
from contract.loop import Loop
from private_api import janitor, reaper
from private_api.app import create_app
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.deployments import scale
from private_api.deployments.hosting import Hosting
from private_api.deployments.scale import Scaler
from private_api.dispatcher import Dispatcher
from private_api.migrate import upgrade_when_reachable
from private_api.services import Services
from private_api.task_logs import TaskLogs
from private_api.tasks.claim import SizeLimits
from private_api.watch import DEPLOYMENTS, TaskWatch

logger = logging.getLogger(__name__)

_DISPATCH_S = 1.0
"""How often the outbox is looked at unasked: for bells that come due later."""


@contextmanager
def private_api_service(
    broker: Broker,
    *,
    database_url: str,
    data_dir: Path,
    service_token: str,
    max_upload_bytes: int,
    sizes: SizeLimits,
    keep_finished_for: timedelta,
    unschedulable_after: timedelta,
    allow_process_models: bool = False,
    gateway_address: str = "grpc-gateway:9000",
    domain: str = "localhost",
) -> Iterator[FastAPI]:
    """Migrate the database, start the loops, yield the app; stop them in the reverse order."""
    database = Database(database_url)
    try:
        upgrade_when_reachable(database)
        store = ArchiveStore(data_dir / "archives")
        logs = TaskLogs(data_dir / "logs")
        watch = TaskWatch()
        dispatching = Loop("dispatcher", Dispatcher(database, broker).step, interval_s=_DISPATCH_S)
        reaping = Loop(
            "reaper",
            reaper.Reaper(database, patience=unschedulable_after, on_change=watch.notify).step,
            interval_s=reaper.INTERVAL_S,
        )
        cleaning = Loop(
            "janitor",
            janitor.Janitor(database, store, logs, keep_finished_for=keep_finished_for).step,
            interval_s=janitor.INTERVAL_S,
        )

        def on_scaled() -> None:
            dispatching.wake()
            watch.notify(DEPLOYMENTS)

        scaling = Loop("scaler", Scaler(database, on_change=on_scaled).step, interval_s=scale.INTERVAL_S)
        services = Services(
            database=database,
            store=store,
            logs=logs,
            watch=watch,
            broker=broker,
            ring=dispatching.wake,
            sweep=cleaning.wake,
            scale=scaling.wake,
            sizes=sizes,
            max_upload_bytes=max_upload_bytes,
            allow_process_models=allow_process_models,
            hosting=Hosting(service_token, gateway_address, sizes.max_unpacked_bytes),
            domain=domain,
        )
        with dispatching, reaping, cleaning, scaling:
            yield create_app(services, service_token=service_token)
    finally:
        database.close()
