"""`python -m operations.sweeper`: ends what the consumers of a work directory left running when a whole stack stops.

It waits for its own end. Compose stops a service before those that it depends on, and replaces it after them; consumers
depend on this one. So if no consumer lives when this one is to stop, the stack stops for good.
"""

import fcntl
import logging
import sys
from pathlib import Path

from job_consumer.engines.docker.engine import DockerEngine
from job_consumer.reconcile import end_runs
from job_consumer.workspace import WorkDir
from kit.service_start import start_service
from kit.settings import Settings
from kit.signals import stop_event

logger = logging.getLogger(__name__)


class SweeperSettings(Settings):
    """The settings of the sweeper."""

    work_dir: Path = Path("/work")


def main() -> int:
    """Wait for a signal, then sweep. Returns the exit code."""
    return start_service("sweeper", SweeperSettings, _run)


def _run(settings: SweeperSettings) -> int:
    stop_event().wait()
    sweep(settings.work_dir)
    return 0


def sweep(work_dir: Path) -> None:
    """End all that runs for those consumers of a work directory that do not live themselves."""
    engine = DockerEngine(work_dir=work_dir, work_volume=None)
    for lock in sorted(work_dir.glob("consumer-*.lock")):
        name = lock.stem.removeprefix("consumer-")
        with lock.open() as file:
            try:
                # Held meanwhile: a consumer that starts now would adopt what is being ended.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("consumer=%s lives and keeps what it runs", name)
            else:
                end_runs(engine, WorkDir(work_dir, name), name)
    engine.close()


if __name__ == "__main__":
    sys.exit(main())
