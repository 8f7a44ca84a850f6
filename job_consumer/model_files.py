"""Makes a model's folder present: whichever run needs it first on this host fetches and unpacks it."""

from collections.abc import Callable
from pathlib import Path

from contract.deployments import ReplicaAssignment
from contract.schemas import Assignment
from job_consumer.context import ConsumerContext
from job_consumer.descriptors import allocated_bytes
from job_consumer.engines import RunKey
from job_consumer.heartbeat import LeaseHeartbeat
from job_consumer.model_cache import make_room
from job_consumer.transfer import fetch_archive, retry_until_accepted, unpack_fetched
from job_consumer.workspace import ModelFolder


def open_model(
    context: ConsumerContext,
    heartbeat: LeaseHeartbeat,
    key: RunKey,
    assignment: Assignment | ReplicaAssignment,
    fetch: Callable[[str, int, Path], str],
) -> ModelFolder | None:
    """The folder for `/model`, or None if the model has no archive.

    Raises `InvalidArchive`, and whatever `retry_until_accepted` raises.
    """
    archive = assignment.model_archive
    if archive is None:
        return None

    def fill(folder: Path) -> None:
        reserve = context.sandbox.limits.disk_reserve_bytes
        _make_room(context, archive.size_bytes, reserve + archive.size_bytes)
        zipped = folder.with_suffix(".zip")

        def make_room_for(size_bytes: int) -> None:
            _make_room(context, size_bytes, reserve + size_bytes)

        try:
            retry_until_accepted(context, heartbeat, lambda: fetch_archive(fetch, key, zipped, archive.sha256))
            unpack_fetched(context, assignment, zipped, folder, make_room=make_room_for)
        finally:
            zipped.unlink(missing_ok=True)
        _make_room(context, allocated_bytes(folder), reserve)

    return context.work.open_model(archive.sha256, fill, key)


def _make_room(context: ConsumerContext, more_bytes: int, free_at_least: int) -> None:
    budget = context.model_cache_bytes
    make_room(context.work, context.engine, more_bytes=more_bytes, budget_bytes=budget, free_at_least=free_at_least)
