"""What a Docker Engine keeps on its disks: what containers write, images, and the volumes of kept folders."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import docker
from docker.errors import APIError, NotFound

from contract.schemas import PullPolicy
from job_consumer.descriptors import allocated_bytes
from job_consumer.engines import Mount, OnPull, RunKey, RunVanished, StoredImage
from job_consumer.engines.docker.errors import engine_errors
from job_consumer.engines.docker.images import ensure_image, find_digests, look_up_image
from job_consumer.engines.docker.profile import EngineHost, mount_device, run_labels, volume_name
from job_consumer.engines.docker.registry_auth import load_registry_auth

_NAMELESS = re.compile(r"[0-9a-f]{64}")
_WRITABLE_FILES = ("HostsPath", "HostnamePath", "ResolvConfPath")
"""Files of the Engine that a container sees in /etc, and writes to if its root is writable."""


class DockerStorage(ABC):
    """The part of a `DockerEngine` that is about disks and what comes onto them."""

    _closing: Event
    """Set by `close`."""
    _registry_auth_file: Path | None

    @abstractmethod
    def _client(self) -> docker.APIClient: ...

    @abstractmethod
    def _describe_host(self) -> EngineHost: ...

    def written_bytes(self, key: RunKey) -> int:
        """Counts the root file system and the nameless volumes that the image declares."""
        labels = [f"{name}={value}" for name, value in run_labels(key).items()]
        with engine_errors():
            client = self._client()
            found = client.containers(all=True, size=True, filters={"label": labels})
            if not found:
                raise RunVanished(key.name)
            container = client.inspect_container(key.name)
            volumes = _measure_volumes(client, container["Mounts"])
            return int(found[0].get("SizeRw") or 0) + volumes + _measure_files(container)

    def storage_dir(self) -> Path | None:
        """The Engine's root directory."""
        with engine_errors():
            return self._describe_host().storage_dir

    def ensure_image(
        self, image: str, pull_policy: PullPolicy, on_progress: OnPull | None = None, *, has_run: bool = False
    ) -> None:
        """A registry's refusal to give an image counts as its absence."""
        with engine_errors():
            ensure_image(self._puller(), image, pull_policy, self._closing, on_progress, has_run=has_run)

    def look_up_image(self, image: str, pull_policy: PullPolicy) -> tuple[bool, str | None]:
        """A registry is asked by the Engine, as for a pull."""
        with engine_errors():
            return look_up_image(self._puller(), image, pull_policy)

    def find_image(self, image: str) -> StoredImage | None:
        with engine_errors():
            try:
                found = self._client().inspect_image(image)  # type: ignore[no-untyped-call]
            except APIError as error:
                # 400: no name of an image.
                if error.status_code in (400, 404):
                    return None
                raise
        return StoredImage(found["Id"], found["Size"], find_digests(found))

    def remove_image(self, image: str) -> bool:
        """The Engine refuses to remove what a container has, whosever it is; a name is removed alone."""
        with engine_errors():
            return _removed(lambda: self._client().remove_image(image))

    def forget_folder(self, mount: Mount) -> bool:
        """Removes the volume; the Engine refuses that while a container has it."""
        with engine_errors():
            name = volume_name(mount, mount_device(mount, self._describe_host()))
            return _removed(lambda: self._client().remove_volume(name))

    def _puller(self) -> docker.APIClient:
        client = self._client()
        load_registry_auth(client, self._registry_auth_file)
        return client


def _removed(call: Any) -> bool:
    try:
        call()
    except NotFound:
        return True
    except APIError as error:
        if error.status_code != 409:
            raise
        return False
    return True


def _measure_volumes(client: docker.APIClient, mounts: list[dict[str, Any]]) -> int:
    folders = {
        mount["Name"]: Path(mount["Source"])
        for mount in mounts
        if mount["Type"] == "volume" and _NAMELESS.fullmatch(mount["Name"])
    }
    hidden = {name for name, folder in folders.items() if not folder.is_dir()}
    total = sum(allocated_bytes(folder) for name, folder in folders.items() if name not in hidden)
    if hidden:
        # This process is in a container itself, and sees no file of the Engine, which counts all its volumes at once.
        volumes = client.df()["Volumes"] or []
        total += sum(max(0, each["UsageData"]["Size"]) for each in volumes if each["Name"] in hidden)
    return total


def _measure_files(container: Mapping[str, Any]) -> int:
    total = 0
    for name in _WRITABLE_FILES:
        with suppress(OSError):
            total += Path(container[name]).stat().st_blocks * 512
    return total
