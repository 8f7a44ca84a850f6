"""A Docker engine for trials: it also tells what a run changed in its image, and leaves nothing of itself behind."""

from contextlib import suppress
from functools import partial

from docker.errors import NotFound

from job_consumer.engines import LABEL, EngineUnavailable, RunKey
from job_consumer.engines.docker.engine import DockerEngine
from job_consumer.engines.docker.errors import engine_errors

_NOT_OF_THE_IMAGE = ("/input", "/output", "/model", "/progress", "/tmp", "/dev", "/proc", "/sys", "/.dockerenv")  # noqa: S108
"""What the Engine itself makes or mounts in a container."""
_MADE_BY_THE_ENGINE = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab")


class WitnessEngine(DockerEngine):
    """Runs one after another, each looked at once more before it is removed."""

    changed: tuple[str, ...] = ()
    """The files and empty folders that the run removed last had made or changed in its image's file system."""

    def remove(self, key: RunKey) -> None:
        """Notes what the run changed, then removes it."""
        with suppress(EngineUnavailable):
            # Its second removal finds nothing.
            self.changed = self._read_changes(key) or self.changed
        super().remove(key)

    def forget_models(self) -> None:
        """Remove the volumes over models' folders of this work directory, which outlive their runs."""
        with engine_errors():
            client = self._client()
            root = str(self._describe_host().work_root)
            for volume in client.volumes(filters={"label": f"{LABEL}.kept"})["Volumes"] or []:
                if str((volume["Options"] or {}).get("device", "")).startswith(f"{root}/"):
                    self._remove(partial(client.remove_volume, volume["Name"]))

    def _read_changes(self, key: RunKey) -> tuple[str, ...]:
        with engine_errors():
            try:
                found = self._client().diff(key.name) or []
            except NotFound:
                return ()
        # Sorted by their parts, a folder stands right before what is in it; only the innermost says something.
        paths = sorted((change["Path"] for change in found), key=lambda path: path.split("/"))
        inner = [path for path, after in zip(paths, [*paths[1:], ""], strict=True) if not after.startswith(f"{path}/")]
        return tuple(path for path in inner if not _is_the_engines(path))


def _is_the_engines(path: str) -> bool:
    is_below = any(path == folder or path.startswith(f"{folder}/") for folder in _NOT_OF_THE_IMAGE)
    return is_below or path in _MADE_BY_THE_ENGINE or path.endswith(("/docker-init", ".pyc", "/__pycache__"))
