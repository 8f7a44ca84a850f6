"""A private API in this process, and consumers in threads of it that run programs: real, and quick to start."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from sqlalchemy import func, select

from contract.access import Caller, Scope
from contract.errors import ConsumerNotFound
from contract.overview import ConsumerView
from contract.statuses import ConsumerStatus
from job_consumer.engines.process.engine import ProcessEngine
from job_consumer.service import ConsumerOptions, run_consumer
from job_consumer.settings import Credential
from private_api.database import Database
from private_api.placement.fleet import show_consumer
from private_api.tables import TaskRow
from tests.limits import PROCESS_LIMITS
from tests.running_api import RunningApi, run_private_api
from tests.zips import make_zip

MIB = 1024**2
OPERATOR = Caller("carol", frozenset({Scope.OPERATE}))


@dataclass(frozen=True)
class Lab:
    """A private API with a model, and what a test asks it."""

    api: RunningApi
    http: httpx.Client
    database: Database
    folder: Path

    def submit(self, count: int) -> list[str]:
        """Tasks of the model."""
        files = {"zip_file": make_zip({"a.txt": b"hello"})}
        return [self.http.post("/api/tasks/?human_readable_id=copy", files=files).json() for _ in range(count)]

    def status(self, uid: str) -> str:
        """Where a task stands."""
        status: str = self.http.get(f"/api/tasks/{uid}/status").json()["status"]
        return status

    def count_finished(self) -> int:
        """How many tasks have an output."""
        with self.database.read() as session:
            finished = select(func.count()).select_from(TaskRow).where(TaskRow.status == "finished")
            return session.scalar(finished) or 0

    def consumers_of(self, uid: str) -> list[str]:
        """Who claimed a task."""
        return [attempt["consumer"] for attempt in self.http.get(f"/api/tasks/{uid}/attempts").json()]

    def view(self, name: str) -> ConsumerView:
        """A consumer as operators see it."""
        return show_consumer(self.database, OPERATOR, name)

    def stands(self, name: str, status: ConsumerStatus) -> bool:
        """Whether a consumer has come to this status."""
        try:
            return self.view(name).status is status
        except ConsumerNotFound:
            return False

    @contextmanager
    def consumer(self, name: str, min_free_bytes: int = 0) -> Iterator[Path]:
        """A consumer in a thread, stopped at the end of the block; gives its work folder."""
        work = self.folder / name
        stopping, engine = threading.Event(), ProcessEngine(work_dir=work)
        options = ConsumerOptions(
            api_url=self.api.url,
            credential=Credential("SERVICE_TOKEN", self.api.token),
            consumer=name,
            work_dir=work,
            # A test's disk is smaller than the usual reserve.
            limits=replace(PROCESS_LIMITS, disk_reserve_bytes=MIB),
            alive_file=self.folder / f"{name}.alive",
            min_free_bytes=min_free_bytes,
            first_pause_s=5.0,
        )
        thread = threading.Thread(target=run_consumer, args=(options, self.api.broker, engine, stopping))
        thread.start()
        try:
            yield work
        finally:
            stopping.set()
            self.api.broker.wake()
            thread.join(60)
            engine.close()
        assert not thread.is_alive()


@contextmanager
def open_lab(database_url: str, folder: Path) -> Iterator[Lab]:
    """A private API with the model `copy`, whose output is its input."""
    with run_private_api(database_url, folder / "data", allow_process_models=True) as api, api.client() as http:
        model = make_zip({"run.sh": b'#!/bin/sh\ncp "$INPUT_DIR"/a.txt "$OUTPUT_DIR"/\n'})
        query = {"human_readable_id": "copy", "container_tag": "process:run.sh", "model_available": "true"}
        http.post("/api/models/", params=query, files={"zip_file": model}).raise_for_status()
        database = Database(database_url)
        yield Lab(api, http, database, folder)
        database.close()
