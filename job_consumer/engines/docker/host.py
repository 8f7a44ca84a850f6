"""Asks a Docker Engine what is true of its machine."""

import logging
from pathlib import Path

import docker
from docker.errors import NotFound

from job_consumer.engines import EngineUnavailable
from job_consumer.engines.docker.profile import EngineHost

logger = logging.getLogger(__name__)


def describe_host(client: docker.APIClient, work_dir: Path, work_volume: str | None) -> EngineHost:
    """What the containers of this Engine depend on. Raises `EngineUnavailable` if it lacks the work volume."""
    info = client.info()
    # The Engine names its init even if the program is missing; only the version shows it.
    has_init = info.get("InitCommit", {}).get("ID") != "N/A"
    if not has_init:
        logger.warning(
            "this Docker Engine has no docker-init, so models end on TERM only if they handle it; install docker-init"
        )
    storage = Path(info["DockerRootDir"])
    return EngineHost(
        work_dir,
        _work_root(client, work_dir, work_volume),
        info["NCPU"],
        has_init,
        storage if storage.is_dir() else None,
    )


def _work_root(client: docker.APIClient, work_dir: Path, work_volume: str | None) -> Path:
    if work_volume is None:
        return work_dir
    try:
        return Path(client.inspect_volume(work_volume)["Mountpoint"])
    except NotFound as error:
        raise EngineUnavailable(f"this Docker Engine has no volume {work_volume}") from error
