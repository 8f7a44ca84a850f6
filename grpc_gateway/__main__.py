"""`python -m grpc_gateway`: the gRPC door, as a supervisor and its processes."""

import logging
import socket
import sys
from dataclasses import replace

from contract.logging import configure_logging
from contract.settings import SettingsError
from contract.signals import stop_event
from grpc_gateway.lanes import Limits
from grpc_gateway.port_lock import hold_port
from grpc_gateway.server import GatewayOptions, PortTaken
from grpc_gateway.settings import GatewaySettings
from grpc_gateway.supervisor import supervise

logger = logging.getLogger(__name__)

_WORKERS_NICENESS = 19
"""The most there is: control calls are answered however much there is to relay. Among containers it counts for nothing;
there CPU shares do (docs/decisions/0015)."""


def main() -> int:
    """Run until a signal. Returns the exit code: 2 for faulty settings, 3 where another gateway has our port."""
    try:
        settings = GatewaySettings.load()
    except SettingsError as error:
        print(f"grpc-gateway cannot start:\n{error}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        return 2
    configure_logging(settings.log_level, settings.log_format)
    stopping = stop_event()
    try:
        with (
            hold_port(settings.grpc_host, settings.grpc_port),
            hold_port(settings.grpc_host, settings.grpc_control_port),
        ):
            supervise(
                _processes(settings),
                stopping,
                log_level=settings.log_level,
                log_format=settings.log_format,
                alive_file=settings.alive_file,
            )
    except PortTaken as error:
        logger.error("grpc-gateway does not start: %s", error)
        return 3
    return 0


def _processes(settings: GatewaySettings) -> list[GatewayOptions]:
    place = f"{socket.gethostname()}:{settings.grpc_port}"
    worker = GatewayOptions(
        private_url=settings.private_api_url,
        service_token=settings.service_token.get_secret_value(),
        name=place,
        host=settings.grpc_host,
        port=settings.grpc_port,
        shares_port=True,
        niceness=_WORKERS_NICENESS,
        requires_key=settings.require_api_key,
        limits=Limits(
            workers=settings.workers,
            max_in_flight=settings.grpc_max_in_flight,
            max_streams=settings.grpc_max_streams,
            max_bytes_in_flight=settings.grpc_max_bytes_in_flight,
        ),
        drain_s=settings.grpc_drain.total_seconds(),
        stream_url=settings.grpc_stream_url,
        token_lifetime_s=settings.grpc_token_lifetime.total_seconds(),
    )
    control = replace(worker, name=f"{place}.control", port=settings.grpc_control_port, niceness=0)
    return [*(replace(worker, name=f"{place}.{number}") for number in range(settings.workers)), control]


if __name__ == "__main__":
    sys.exit(main())
