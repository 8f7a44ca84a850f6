"""`python -m job_consumer.engines.docker.filter`: one filter, for all consumers of a host."""

import asyncio
import sys

from job_consumer.engines.docker.filter.relay import FilterOptions
from job_consumer.engines.docker.filter.service import run_filter
from job_consumer.engines.docker.filter.settings import EngineFilterSettings
from kit.service_start import start_service


def main() -> int:
    """Serve until a signal. Returns the exit code: 2 for faulty settings, 5 if the Engine refused for a minute."""
    return start_service("engine-filter", EngineFilterSettings, _run)


def _run(settings: EngineFilterSettings) -> int:
    address = settings.replica_publish_address
    options = FilterOptions(
        engine_socket=settings.engine_socket,
        work_dir=settings.work_dir,
        work_volume=settings.work_volume,
        network=settings.replica_network,
        guard_image=settings.replica_guard_image,
        publish_address=str(address) if address else None,
        runtimes=settings.model_runtimes,
    )
    return asyncio.run(run_filter(options, settings.filter_socket, settings.alive_file))


if __name__ == "__main__":
    sys.exit(main())
