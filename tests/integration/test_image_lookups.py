"""Whether consumers could run a model's image: they look, and registrations and views say what they found."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from sqlalchemy import update

from contract.access import ANONYMOUS, Caller
from contract.errors import ConsumerNotFound, PermissionDenied
from contract.image_lookups import LookupResult, LookupResults
from contract.queries import ModelRegistration
from contract.schemas import ConsumerRegistration, ModelView
from contract.statuses import Finding
from job_consumer.engines.process.engine import ProcessEngine
from job_consumer.service import ConsumerOptions, run_consumer
from job_consumer.settings import Credential
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.image_tables import ImageFindingRow
from private_api.models import register_model, show_model
from private_api.placement.consumers import register_consumer
from private_api.placement.image_lookups import add_findings, due_lookups, is_looked_up, keep_findings
from private_api.tables import ConsumerRow, ModelVersionRow
from tests.limits import PROCESS_LIMITS
from tests.running_api import RunningApi, run_private_api
from tests.waiting import wait_until
from tests.zips import make_zip

ALICE = Caller("alice", frozenset())
GPU = "GPU-11111111-2222-3333-4444-555555555555"
REFUSED = "the image lab/segment:1 does not run here"


@pytest.fixture
def http(sqlite_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """A private API with a consumer beside it that runs programs and no images."""
    with (
        run_private_api(sqlite_url, tmp_path / "data", allow_process_models=True) as api,
        consumer(api, tmp_path / "work"),
        api.client() as http,
    ):
        wait_until(lambda: api.database_url and is_live(sqlite_url), "the consumer to register")
        yield http


@contextmanager
def consumer(api: RunningApi, work: Path) -> Iterator[None]:
    work.mkdir()
    stopping, engine = threading.Event(), ProcessEngine(work_dir=work)
    options = ConsumerOptions(
        api_url=api.url,
        credential=Credential("SERVICE_TOKEN", api.token),
        consumer="ada",
        work_dir=work,
        limits=PROCESS_LIMITS,
        min_free_bytes=0,
    )
    thread = threading.Thread(target=run_consumer, args=(options, api.broker, engine, stopping))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        api.broker.wake()
        thread.join(60)
    assert not thread.is_alive()


def is_live(url: str) -> bool:
    database = Database(url)
    try:
        with database.read() as session:
            return session.get(ConsumerRow, "ada") is not None
    finally:
        database.close()


def post(http: httpx.Client, model: str, tag: str, data: bytes | None = None) -> dict[str, Any]:
    query = {"human_readable_id": model, "container_tag": tag}
    if data is not None:
        query["model_available"] = "true"
    headers = {} if data is None else {"Content-Type": "application/zip"}
    answer: dict[str, Any] = http.post("/api/models/", params=query, content=data, headers=headers).json()
    return answer


def test_a_registration_says_that_no_consumer_gets_the_image(http: httpx.Client) -> None:
    post(http, "segment", "lab/segment:1")
    # A slow machine may take longer than a registration waits; the view says the same.
    wait_until(lambda: http.get("/api/models/segment").json()["warnings"], "the consumer to look")
    # The same image under another name: the consumer waits for lookups now.
    (warning,) = post(http, "segment-2", "lab/segment:1")["warnings"]
    assert warning.startswith("no consumer gets its image, so its tasks will fail with image_not_found: ")
    assert REFUSED in warning
    listed = {model["human_readable_id"]: model["warnings"] for model in http.get("/api/models/").json()}
    assert listed["segment-2"] == [warning]


def test_a_registration_of_what_a_consumer_has_brings_no_warning(http: httpx.Client) -> None:
    program = make_zip({"run.sh": b"#!/bin/sh\n"})
    assert post(http, "copy", "process:run.sh", program)["warnings"] == []


@pytest.fixture
def models(database: Database, store: ArchiveStore) -> "Models":
    return Models(database, store)


class Models:
    """The rules over a fresh database of each kind."""

    def __init__(self, database: Database, store: ArchiveStore) -> None:
        self.database = database
        self._store = store

    def register(self, name: str, **fields: Any) -> ModelView:
        registration = ModelRegistration(human_readable_id=name, container_tag="lab/segment:1", **fields)
        return register_model(self.database, self._store, registration, None, ANONYMOUS)

    def join(self, name: str, *, gpu_uuid: str | None = None, owner: str | None = None, looks: bool = True) -> None:
        request = ConsumerRegistration(
            consumer=name, gpu_uuid=gpu_uuid, accepts_cpu_tasks=gpu_uuid is None, looks_up_images=looks
        )
        register_consumer(self.database, request, owner=owner)

    def due(self, consumer: str, owner: str | None = None) -> list[str]:
        found = due_lookups(self.database, consumer, owner=owner)
        return [f"{each.human_readable_id}@{each.model_version}" for each in found]

    def find(self, consumer: str, model: str, finding: Finding, detail: str | None = None, **more: Any) -> None:
        told = {"human_readable_id": model, "model_version": 1, "finding": finding, "detail": detail} | more
        result = LookupResult.model_validate(told)
        keep_findings(self.database, LookupResults(consumer=consumer, results=[result]), owner=None)

    def view(self, model: str, caller: Caller = ALICE) -> ModelView:
        (view,) = add_findings(self.database, [show_model(self.database, model, ANONYMOUS)], caller)
        return view

    def age(self, by: timedelta) -> None:
        """Make every finding and every version older; consumers stay as they are."""
        with self.database.write() as session:
            for column in (ImageFindingRow.found_at, ModelVersionRow.created_at):
                for row in session.query(column.class_).all():
                    setattr(row, column.key, getattr(row, column.key) - by)


def test_a_consumer_looks_up_the_default_versions_of_its_kind_once(models: Models) -> None:
    models.join("cpu")
    models.join("gpu", gpu_uuid=GPU)
    models.register("a")
    models.register("a", replace=True)
    models.register("b", use_gpu=True)
    assert (models.due("cpu"), models.due("gpu")) == (["a@2"], ["b@1"])
    models.find("cpu", "a", Finding.PRESENT, model_version=2)
    assert (models.due("cpu"), models.due("gpu")) == ([], ["b@1"])
    models.register("a", replace=True)
    assert models.due("cpu") == ["a@3"]


def test_what_was_found_is_looked_up_again_after_an_hour_and_in_a_registry_after_a_day(models: Models) -> None:
    models.join("cpu")
    for name, finding in (("a", Finding.PRESENT), ("b", Finding.IN_REGISTRY), ("c", Finding.NOT_FOUND)):
        models.register(name)
        models.find("cpu", name, finding)
    models.age(timedelta(minutes=59))
    assert models.due("cpu") == []
    models.age(timedelta(minutes=2))
    assert sorted(models.due("cpu")) == ["a@1", "c@1"]
    models.age(timedelta(hours=24))
    assert sorted(models.due("cpu")) == ["a@1", "b@1", "c@1"]


def test_old_models_are_looked_up_ten_an_hour_and_new_ones_at_once(models: Models) -> None:
    models.join("cpu")
    for number in range(12):
        models.register(f"old-{number:02}")
    models.age(timedelta(days=2))
    due = models.due("cpu")
    assert len(due) == 10
    for each in due:
        models.find("cpu", each.removesuffix("@1"), Finding.IN_REGISTRY)
    assert models.due("cpu") == []
    models.register("new")
    assert models.due("cpu") == ["new@1"]


def test_only_the_owner_of_a_consumer_speaks_for_it(models: Models) -> None:
    models.join("cpu", owner="alice")
    with pytest.raises(PermissionDenied):
        models.due("cpu", owner="bob")
    with pytest.raises(PermissionDenied):
        models.find("cpu", "a", Finding.PRESENT)
    with pytest.raises(ConsumerNotFound):
        models.due("nobody")


def test_a_finding_of_a_model_that_was_never_there_is_dropped(models: Models) -> None:
    models.join("cpu")
    models.find("cpu", "nobody", Finding.PRESENT)
    assert models.register("nobody").images == []


def test_the_view_says_what_each_consumer_found_and_of_one_that_does_not_look_that_it_is_unknown(
    models: Models,
) -> None:
    models.register("a")
    assert models.view("a").images == []
    for name, looks in (("one", True), ("two", True), ("of-the-release-before", False)):
        models.join(name, looks=looks)
    assert not is_looked_up(models.database, models.view("a"))
    models.find("one", "a", Finding.PRESENT)
    models.find("two", "a", Finding.NOT_FOUND, "no registry could be reached")
    assert is_looked_up(models.database, models.view("a"))
    view = models.view("a")
    assert [(each.consumer, each.finding, each.detail) for each in view.images] == [
        ("of-the-release-before", Finding.UNKNOWN, None),
        ("one", Finding.PRESENT, None),
        ("two", Finding.NOT_FOUND, "no registry could be reached"),
    ]
    (warning,) = view.warnings
    assert warning.startswith("1 of the 3 consumers that take its tasks do not get its image")
    assert warning.endswith("no registry could be reached")
    # Consumers are named to holders of a key only.
    anonymous = models.view("a", ANONYMOUS)
    assert (anonymous.images, anonymous.warnings) == ([], view.warnings)


def test_a_consumer_that_is_silent_or_of_another_kind_counts_for_nothing(models: Models) -> None:
    models.register("a")
    models.join("cpu")
    models.join("gpu", gpu_uuid=GPU)
    models.find("cpu", "a", Finding.NOT_FOUND, "it is not there")
    assert [each.consumer for each in models.view("a").images] == ["cpu"]
    assert models.view("a").warnings != []
    with models.database.write() as session:
        now = models.database.now(session)
        session.execute(update(ConsumerRow).values(seen_at=now - timedelta(minutes=2)))
    assert (models.view("a").images, models.view("a").warnings) == ([], [])


def test_the_first_digest_that_is_found_pins_a_version(models: Models) -> None:
    first, second = (f"lab/segment@sha256:{digit * 64}" for digit in "12")
    for consumer in ("one", "two"):
        models.join(consumer)
    models.register("by-default")
    models.register("not", pin=False)
    models.register("newest", pull_policy="always")
    models.register("local", pull_policy="never")
    assert models.view("by-default").pinned_image is None
    for foreign in (f"evil/segment@sha256:{'1' * 64}", "lab/segment@sha256:1", "lab/segment:2", f"x{first}"):
        models.find("one", "by-default", Finding.IN_REGISTRY, digest=foreign)
        assert models.view("by-default").pinned_image is None
    for model in ("by-default", "not", "newest", "local"):
        models.find("one", model, Finding.NOT_FOUND)
        models.find("two", model, Finding.IN_REGISTRY, digest=first)
        models.find("one", model, Finding.PRESENT, digest=second)
    pinned = {name: models.view(name).pinned_image for name in ("by-default", "not", "newest", "local")}
    assert pinned == {"by-default": first, "not": None, "newest": None, "local": None}
    # Another version is another image.
    models.register("by-default", replace=True)
    models.find("one", "by-default", Finding.PRESENT, digest=second, model_version=2)
    assert models.view("by-default").pinned_image == second


def test_a_pin_needs_the_pull_policy_that_leaves_an_image_as_it_is(models: Models) -> None:
    for policy in ("always", "never"):
        with pytest.raises(ValidationError, match="pin is for the pull policy missing"):
            models.register("a", pin=True, pull_policy=policy)
