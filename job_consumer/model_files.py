"""Makes a model's folder present: fetched and unpacked by the first who needs it on this host."""

from collections.abc import Callable
from pathlib import Path

from contract.deployments import ReplicaAssignment
from contract.schemas import Assignment
from job_consumer.engine import RunKey
from job_consumer.heart import Heart
from job_consumer.host import Host
from job_consumer.transfer import fetch_archive, persist
from job_consumer.unpack import unpack_archive
from job_consumer.workspace import ModelFolder


def open_model(
    host: Host,
    heart: Heart,
    key: RunKey,
    assignment: Assignment | ReplicaAssignment,
    fetch: Callable[[str, int, Path], None],
) -> ModelFolder | None:
    """The folder for `/model`, None where the model has none. Raises `InvalidArchive`, and all that `persist` does."""
    archive = assignment.model_archive
    if archive is None:
        return None

    def fill(folder: Path) -> None:
        zipped = folder.with_suffix(".zip")
        try:
            persist(host, heart, lambda: fetch_archive(fetch, key, zipped, archive.sha256))
            unpack_archive(zipped, folder, max_unpacked_bytes=assignment.max_unpacked_bytes)
        finally:
            zipped.unlink(missing_ok=True)

    return host.work.open_model(archive.sha256, fill)
