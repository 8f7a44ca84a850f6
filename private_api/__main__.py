"""`python -m private_api`: the private API as a process of its own."""

import os
import sys
from pathlib import Path

from contract.broker.rabbitmq import RabbitMQBroker
from kit.http_server import serve
from kit.service_start import start_service
from private_api.service import PrivateApiOptions, private_api_service
from private_api.settings import PrivateApiSettings
from private_api.tasks.limits import SizeLimits


def main() -> int:
    """Run until a signal. Returns the exit code: 2 for faulty settings."""
    return start_service("private-api", PrivateApiSettings, _run)


def _run(settings: PrivateApiSettings) -> int:
    if fault := _folder_fault(settings.data_dir):
        print(f"private-api cannot start:\nDATA_DIR: {fault}", file=sys.stderr)  # noqa: T201 - as for any faulty variable
        return 2
    options = PrivateApiOptions(
        database_url=settings.effective_database_url,
        data_dir=settings.data_dir,
        service_token=settings.service_token.get_secret_value(),
        max_upload_bytes=settings.max_upload_bytes,
        sizes=SizeLimits(settings.max_unpacked_bytes, settings.max_output_bytes, settings.max_entries),
        keep_finished_for=settings.keep_finished_for,
        keep_records_for=settings.keep_records_for,
        unschedulable_after=settings.unschedulable_after,
        yield_after=settings.yield_after,
        allowed_images=settings.allowed_images,
        model_runtimes=settings.model_runtimes,
        gateway_address=settings.grpc_replica_address,
        domain=settings.proxy_domain,
        disk_reserve_bytes=settings.disk_reserve_bytes,
        quotas=settings.quotas,
    )
    with (
        RabbitMQBroker(settings.broker_url, queue_type=settings.rabbit_queue_type) as broker,
        private_api_service(broker, options) as app,
    ):
        serve(app, settings.private_api_host, settings.private_api_port)
    return 0


def _folder_fault(folder: Path) -> str | None:
    """Make the folder if it is missing. Returns why files cannot be kept in it, or None if they can."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        return f"{folder} does not exist and cannot be created: {error.strerror}"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        owner, user = folder.stat().st_uid, os.geteuid()
        return f"{folder} belongs to user {owner}, and user {user} may not write to it; run chown {user} {folder}"
    return None


if __name__ == "__main__":
    sys.exit(main())
