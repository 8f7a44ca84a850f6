"""`python -m private_api`: the private API as a process of its own."""

import sys

from contract.http_server import serve
from contract.rabbitmq_broker import RabbitMQBroker
from contract.service_start import start_service
from private_api.service import private_api_service
from private_api.settings import PrivateApiSettings
from private_api.tasks.claim import SizeLimits


def main() -> int:
    """Run until a signal. Returns the exit code: 2 for faulty settings."""
    return start_service("private-api", PrivateApiSettings, _run)


def _run(settings: PrivateApiSettings) -> int:
    with (
        RabbitMQBroker(settings.broker_url, queue_type=settings.rabbit_queue_type) as broker,
        private_api_service(
            broker,
            database_url=settings.effective_database_url,
            data_dir=settings.data_dir,
            service_token=settings.service_token.get_secret_value(),
            max_upload_bytes=settings.max_upload_bytes,
            sizes=SizeLimits(settings.max_unpacked_bytes, settings.max_output_bytes),
            keep_finished_for=settings.keep_finished_for,
            unschedulable_after=settings.unschedulable_after,
            gateway_address=settings.grpc_gateway_address,
            domain=settings.proxy_domain,
        ) as app,
    ):
        serve(app, settings.private_api_host, settings.private_api_port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
