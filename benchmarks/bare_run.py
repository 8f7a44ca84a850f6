"""The yardstick of a task: the same container by hand, with every option that the server gives it.

What is timed is create, start, wait, and the removal of the container and of the volumes that its folders are. Making
the folders is not: no file is moved and nothing is stored.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import docker

from job_consumer.engines import ContainerSpec, Mount, RunKey
from job_consumer.engines.docker.host import describe_host
from job_consumer.engines.docker.profile import EngineHost, container_config
from tests.engine_client import engine_client

MIB = 1024**2


class BareRuns:
    """Runs of one image, one after another."""

    def __init__(self, client: docker.APIClient, image: str, folder: Path) -> None:
        self._client = client
        self._image = image
        self._folder = folder
        self._host: EngineHost = describe_host(client, folder, None)

    def run(self) -> float:
        """The seconds of one run. It must end with 0."""
        config, name = self._config()
        began = time.perf_counter()
        self._client.create_container_from_config(config, name)
        self._client.start(name)
        code = self._client.wait(name)["StatusCode"]
        self._remove(config, name)
        seconds = time.perf_counter() - began
        assert code == 0, f"the container of {self._image} ended with {code}"
        return seconds

    def start(self) -> float:
        """The seconds of create and start alone."""
        config, name = self._config()
        began = time.perf_counter()
        self._client.create_container_from_config(config, name)
        self._client.start(name)
        seconds = time.perf_counter() - began
        self._remove(config, name)
        return seconds

    def _remove(self, config: dict[str, Any], name: str) -> None:
        self._client.remove_container(name, v=True, force=True)
        for mount in config["HostConfig"]["Mounts"]:
            self._client.remove_volume(mount["Source"])

    def _config(self) -> tuple[dict[str, Any], str]:
        key = RunKey(secrets.token_hex(32), 1)
        mounts = []
        for which in ("input", "output", "progress"):
            inside = self._folder / key.uid / which
            inside.mkdir(parents=True)
            # The image runs as another user.
            inside.chmod(0o777)
            mounts.append(Mount(f"{key.name}-{which}", inside, f"/{which}", read_only=which == "input"))
        (self._folder / key.uid / "input/a.txt").write_text("1")
        spec = ContainerSpec(
            key=key,
            consumer="bare",
            image=self._image,
            isolation="strict",
            user="65532:65532",
            environment={"INPUT_DIR": "/input", "OUTPUT_DIR": "/output"},
            mounts=tuple(mounts),
            gpu_uuid=None,
            memory_limit_bytes=4096 * MIB,
            cpu_limit=None,
            pids_limit=4096,
            shared_memory_bytes=1024 * MIB,
            temporary_bytes=1024 * MIB,
            log_limit_bytes=10 * MIB,
        )
        return container_config(spec, self._host), key.name


@contextmanager
def bare_runs(image: str, folder: Path) -> Iterator[BareRuns]:
    """Runs of an image while the block is open; `folder` gets their folders."""
    folder.mkdir()
    with closing(engine_client()) as client:
        yield BareRuns(client, image, folder)
