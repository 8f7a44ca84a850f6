"""Asks a Docker Engine what is true of its machine."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
from docker.errors import NotFound

from job_consumer.engines import EngineUnavailable
from job_consumer.engines.docker.profile import CDI_GPU, EngineHost
from job_consumer.engines.docker.seccomp import choose_profile

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
        has_gpus_by_cdi(info),
        choose_profile(info),
    )


def has_gpus_by_cdi(info: Mapping[str, Any]) -> bool:
    """Whether an Engine that says this of itself hands out GPUs by the Container Device Interface alone."""
    if "nvidia" in info["Runtimes"]:
        return False
    # From API 1.50 on it lists what it found; before, CDI is off until an operator turns it on.
    if "DiscoveredDevices" in info:
        return any(device["ID"].startswith(CDI_GPU) for device in info["DiscoveredDevices"] or [])
    return bool(info.get("CDISpecDirs"))


def _work_root(client: docker.APIClient, work_dir: Path, work_volume: str | None) -> Path:
    if work_volume is None:
        return work_dir
    try:
        return Path(client.inspect_volume(work_volume)["Mountpoint"])
    except NotFound as error:
        raise EngineUnavailable(f"this Docker Engine has no volume {work_volume}") from error
