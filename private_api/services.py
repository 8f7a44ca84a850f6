"""What the routes are given: the collaborators and limits of one private API."""

from collections.abc import Callable
from dataclasses import dataclass

from contract.broker import Broker
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.deployments.hosting import Hosting
from private_api.task_logs import TaskLogs
from private_api.tasks.claim import SizeLimits
from private_api.watch import DEPLOYMENTS, TaskWatch


@dataclass(frozen=True)
class Services:
    """One private API's collaborators. All of them are thread-safe."""

    database: Database
    store: ArchiveStore
    logs: TaskLogs
    watch: TaskWatch
    broker: Broker
    ring: Callable[[], None]
    """Lets the dispatcher look at the outbox now."""
    sweep: Callable[[], None]
    """Lets the janitor look now."""
    scale: Callable[[], None]
    """Lets the scaler look now."""
    sizes: SizeLimits
    max_upload_bytes: int
    allow_process_models: bool
    hosting: Hosting
    domain: str
    """The name clients use for the server."""

    def note_deployments(self) -> None:
        """A deployment or a replica has changed: the scaler and whoever waits for the routing table look now."""
        self.scale()
        self.watch.notify(DEPLOYMENTS)
