"""`python -m grpc_gateway`: the gRPC door, as a supervisor and its processes."""

import logging
import socket
import sys
from dataclasses import replace

from grpc_gateway.admission import Limits
from grpc_gateway.options import GatewayOptions
from grpc_gateway.ports import PortTaken
from grpc_gateway.process.port_lock import hold_port
from grpc_gateway.process.supervisor import supervise
from grpc_gateway.process.worker import EXIT_PORT_TAKEN
from grpc_gateway.settings import GatewaySettings
from kit.service_start import start_service
from kit.signals import stop_event

logger = logging.getLogger(__name__)

_CONTROL_MESSAGE_BYTES = 4 * 1024**2
"""gRPC's own default. What these calls say is small, and many of them need no key."""
_WORKERS_NICENESS = 19
"""The maximum, so that control calls are answered however much there is to relay. It counts for nothing between
containers; CPU shares do that (docs/decisions/0015)."""


def main() -> int:
    """Run until a signal. Returns the exit code: 2 for faulty settings, 3 if a port of ours is taken."""
    return start_service("grpc-gateway", GatewaySettings, _run)


def _run(settings: GatewaySettings) -> int:
    stopping = stop_event()
    try:
        with (
            hold_port(settings.grpc_host, settings.grpc_port),
            hold_port(settings.grpc_host, settings.grpc_control_port),
            hold_port(settings.grpc_host, settings.grpc_replica_port),
        ):
            supervise(
                _plan_processes(settings),
                stopping,
                log_level=settings.log_level,
                log_format=settings.log_format,
                alive_file=settings.alive_file,
            )
    except PortTaken as error:
        logger.error("grpc-gateway does not start: %s", error)
        return EXIT_PORT_TAKEN
    return 0


def _plan_processes(settings: GatewaySettings) -> list[GatewayOptions]:
    place = f"{socket.gethostname()}:{settings.grpc_port}"
    worker = GatewayOptions(
        private_url=settings.private_api_url,
        service_token=settings.service_token.get_secret_value(),
        name=place,
        host=settings.grpc_host,
        port=settings.grpc_port,
        replica_host=settings.grpc_host,
        replica_port=settings.grpc_replica_port,
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
    # Calls of many clients come through few connections of the proxy. To the workers it passes connections on, too.
    control = replace(
        worker,
        name=f"{place}.control",
        port=settings.grpc_control_port,
        replica_port=None,
        niceness=0,
        behind_proxy=True,
        max_message_bytes=_CONTROL_MESSAGE_BYTES,
    )
    return [*(replace(worker, name=f"{place}.{number}") for number in range(settings.workers)), control]


if __name__ == "__main__":
    sys.exit(main())
