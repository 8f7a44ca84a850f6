"""What all servers of these examples share.

Health, reflection, a graceful stop on TERM, exceptions reported as INTERNAL, and the request's id in the trailers.
"""

import contextlib
import signal
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

GRACE_S = 8
"""How long open calls may take after TERM. Docker kills after 10 s by default."""
MAX_DETAIL = 4096
"""In characters. Clients read about 8 KB of trailers, details included."""
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # On by default: a second server on the port would silently get half of the connections.
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
]


def serve(port: int, services: dict[str, Callable[[grpc.Server], None]], *, threads: int = 64) -> None:
    """Serve `services` (full name to a function that adds it) until TERM. Each open call holds one thread."""
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server = grpc.server(ThreadPoolExecutor(threads), interceptors=[_Interceptor()], options=OPTIONS)
    # The non-blocking `Watch` takes one more argument, which the interceptor would not pass on.
    checks = health.HealthServicer(experimental_non_blocking=False)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for add in services.values():
        add(server)
    reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    server.add_insecure_port(f"[::]:{port}")
    server.start()
    for name in services:
        checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    print(f"serving {', '.join(services)} on port {port}", flush=True)
    stopped.wait()
    checks.enter_graceful_shutdown()
    server.stop(GRACE_S).wait()


class _Interceptor(grpc.ServerInterceptor):
    """Reports a handler's exception as INTERNAL with its stack trace; grpc itself would say UNKNOWN."""

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        handler = continuation(details)
        if handler is None:
            return None
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            if behaviour := getattr(handler, kind):
                streams = kind.endswith("_stream")
                return handler._replace(**{kind: _guard_stream(behaviour) if streams else _guard(behaviour)})
        return handler


def _guard(behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def guarded(request: Any, context: Any) -> Any:
        with _reporting(context):
            return behaviour(request, context)

    return guarded


def _guard_stream(behaviour: Callable[[Any, Any], Iterator[Any]]) -> Callable[[Any, Any], Iterator[Any]]:
    def guarded(request: Any, context: Any) -> Iterator[Any]:
        with _reporting(context):
            yield from behaviour(request, context)

    return guarded


@contextlib.contextmanager
def _reporting(context: Any) -> Iterator[None]:
    try:
        yield
        _name_request(context)
    # A handler may raise anything. The caller hears of it, and the server keeps serving.
    except Exception:
        _name_request(context)
        if context.code() not in (None, grpc.StatusCode.OK):
            # `context.abort` raises, too, and a status that was set on purpose wins.
            context.abort(context.code(), context.details())
        text = traceback.format_exc()
        print(text, flush=True)
        context.abort(grpc.StatusCode.INTERNAL, text[-MAX_DETAIL:])


def _name_request(context: Any) -> None:
    """Add the caller's `request_id`, or a new one, to the handler's own trailers."""
    trailers = tuple(context.trailing_metadata() or ())
    if "request_id" not in dict(trailers):
        given = dict(context.invocation_metadata()).get("request_id")
        context.set_trailing_metadata((*trailers, ("request_id", given or str(uuid.uuid4()))))
