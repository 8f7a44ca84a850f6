"""A private API that really runs: its loops in threads, HTTP on a free port of the loopback."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from contract.broker.memory import InMemoryBroker
from contract.deployments import ReplicaAssignment, ReplicaClaim
from contract.private_client import PrivateClient
from contract.zip_rules import MAX_ENTRIES
from kit.http_server import serve_in_thread
from private_api.quotas.limits import NO_LIMITS, Limits
from private_api.service import PrivateApiOptions, private_api_service
from private_api.settings import YIELD_AFTER
from private_api.tasks.limits import SizeLimits
from tests.waiting import wait_until

TOKEN = "a-service-token-of-the-tests"


@dataclass(frozen=True)
class RunningApi:
    """What a test needs to talk to it, and to look behind it."""

    url: str
    token: str
    broker: InMemoryBroker
    data_dir: Path
    database_url: str

    def client(self, **options: Any) -> httpx.Client:
        """A client with the service token; close it."""
        headers = {"Authorization": f"Bearer {self.token}"}
        # Plain HTTP: without this, each client would load every certificate authority, which takes longer than a call.
        plain: dict[str, Any] = {"verify": False, "trust_env": False}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **plain, **options)

    def consumer(self) -> PrivateClient:
        """A client as consumers have it; close it."""
        return PrivateClient(self.url, self.token)

    def files(self) -> list[str]:
        """Every archive at rest and every upload that is being written."""
        root = self.data_dir / "archives"
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def claim_waiting_replica(client: PrivateClient, consumer: str) -> ReplicaAssignment:
    """The replica that waits for this consumer. A claim passes over one that the scaler is just deciding about."""
    held: list[ReplicaAssignment] = []

    def claim() -> bool:
        if assignment := client.claim_replica(ReplicaClaim(consumer=consumer)):
            held.append(assignment)
        return bool(held)

    wait_until(claim, "a replica to host")
    return held[0]


@contextmanager
def run_private_api(
    database_url: str,
    data_dir: Path,
    *,
    broker: InMemoryBroker | None = None,
    max_upload_bytes: int = 64 * 1024**2,
    max_unpacked_bytes: int = 256 * 1024**2,
    max_output_bytes: int = 64 * 1024**2,
    max_entries: int = MAX_ENTRIES,
    allow_process_models: bool = False,
    allowed_images: tuple[str, ...] = (),
    model_runtimes: tuple[str, ...] = (),
    service_token: str = TOKEN,
    disk_reserve_bytes: int = 16 * 1024**2,
    yield_after: timedelta = YIELD_AFTER,
    quotas: Limits = NO_LIMITS,
) -> Iterator[RunningApi]:
    """Serve while the block is open."""
    options = PrivateApiOptions(
        database_url=database_url,
        data_dir=data_dir,
        service_token=service_token,
        max_upload_bytes=max_upload_bytes,
        sizes=SizeLimits(max_unpacked_bytes, max_output_bytes, max_entries),
        keep_finished_for=timedelta(days=30),
        unschedulable_after=timedelta(hours=24),
        allow_process_models=allow_process_models,
        allowed_images=allowed_images,
        model_runtimes=model_runtimes,
        disk_reserve_bytes=disk_reserve_bytes,
        yield_after=yield_after,
        quotas=quotas,
    )
    with (
        broker or InMemoryBroker() as bells,
        private_api_service(bells, options) as app,
        serve_in_thread(app, "127.0.0.1", 0) as port,
    ):
        yield RunningApi(f"http://127.0.0.1:{port}", service_token, bells, data_dir, database_url)
