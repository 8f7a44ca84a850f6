"""The collaborators and limits of one private API, as its routes get them."""

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta

from contract.access import Caller
from contract.broker import Broker
from contract.quotas import Quota
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.deployments.replicas import Hosting
from private_api.feed.feed import Feed
from private_api.keys import EndedKeys
from private_api.lanes import Lane
from private_api.quotas.limits import Limits, limits_of
from private_api.quotas.requests import RequestCounts
from private_api.quotas.uploads import UploadPlaces
from private_api.recent import Recent
from private_api.task_logs import TaskLogs
from private_api.tasks.limits import SizeLimits
from private_api.watch import DEPLOYMENTS, TaskWatch


@dataclass(frozen=True)
class Services:
    """What routes work with. Every collaborator is thread-safe."""

    database: Database
    holders: Lane
    """What the consumers' own calls run in: a heartbeat or a commit never waits behind polls and uploads."""
    store: ArchiveStore
    logs: TaskLogs
    watch: TaskWatch
    broker: Broker
    ring: Callable[[], None]
    """Makes the dispatcher look at the outbox now."""
    sweep: Callable[[], None]
    """Makes the janitor look now."""
    scale: Callable[[], None]
    """Makes the scaler look now."""
    ended_keys: EndedKeys
    feed: Feed
    look: Callable[[], None]
    """Makes the feed look now."""
    sizes: SizeLimits
    max_upload_bytes: int
    allow_process_models: bool
    allowed_images: tuple[str, ...]
    """Patterns of the images that models may be registered with; empty: any."""
    model_runtimes: tuple[str, ...]
    """The runtimes that models may be registered with, beside the Engine's default."""
    hosting: Hosting
    domain: str
    """The name clients use for the server."""
    yield_after: timedelta
    """How long GPU tasks wait before a replica with calls leaves its GPU to them."""
    quotas: Limits
    """What limits an owner whose key has no limits of its own."""
    recent: Recent = field(default_factory=Recent)
    upload_places: UploadPlaces = field(default_factory=UploadPlaces)
    request_counts: RequestCounts = field(default_factory=RequestCounts)
    large_archives: threading.Lock = field(default_factory=threading.Lock)
    """Held while an archive of very many entries is checked: one by one they take as long, and less memory."""

    def upload_place(self, caller: Caller) -> AbstractContextManager[None]:
        """A place for one upload of the caller. Raises `QuotaExceeded`."""
        return self.upload_places.occupy(caller, limits_of(caller, self.quotas))

    def count_request(self, caller: Caller) -> None:
        """Count a request of the caller. Raises `QuotaExceeded`."""
        self.request_counts.enter(caller, limits_of(caller, self.quotas))

    def counted(self, owner: str) -> Mapping[Quota, int]:
        """What this process counts of an owner, and no row tells."""
        return {Quota.UPLOADS: self.upload_places.count(owner), Quota.REQUESTS: self.request_counts.count(owner)}

    def note_deployments(self) -> None:
        """Wake the scaler and everybody who waits for the routing table: a deployment or a replica has changed."""
        self.scale()
        self.watch.notify(DEPLOYMENTS)
