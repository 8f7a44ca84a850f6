"""Where a container's folders really are: by a link in the work directory the Engine would mount any folder."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from job_consumer.engines.docker.filter.calls import Refused


def check_folders(devices: Iterable[str], *, work_root: PurePosixPath, work_dir: Path) -> None:
    """Raises `Refused` if one of the folders is reached by a link, or is none.

    `devices` and `work_root` are as the Engine sees them, `work_dir` is the same directory here. The Engine follows
    links when it starts a container, so this is asked before.
    """
    root = work_dir.resolve()
    for device in devices:
        folder = root / PurePosixPath(device).relative_to(work_root)
        if folder.resolve() != folder or not folder.is_dir():
            raise Refused(f"{device} is no folder of the work directory, or is reached by a link")
