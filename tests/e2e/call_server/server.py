"""A container for tests of the gRPC door: one service, `calls.Echo`, of opaque bytes, that does what a test asks for.

It knows no message type, so what a test sees is what the door passed on. Metadata says how to behave.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

Context = Any


class Echo:
    """The methods. `seen` counts what only the container can see."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.sleeping = 0

    async def call(self, request: bytes, context: Context) -> bytes:
        """The same bytes back."""
        return request

    async def who(self, request: bytes, context: Context) -> bytes:
        """This replica's uid."""
        return os.environ.get("REPLICA_UID", "").encode()

    async def metadata(self, request: bytes, context: Context) -> bytes:
        """The metadata as lines `key=value`."""
        return "\n".join(f"{key}={value}" for key, value in context.invocation_metadata()).encode()

    async def deadline(self, request: bytes, context: Context) -> bytes:
        """Seconds left, as text, or `none` if the call has no deadline."""
        left = context.time_remaining()
        return b"none" if left is None else f"{left:.4f}".encode()

    async def sleep(self, request: bytes, context: Context) -> bytes:
        """Answers after the seconds in the request; counts when it is cancelled meanwhile."""
        self.sleeping += 1
        try:
            await asyncio.sleep(float(request))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.sleeping -= 1
        return request

    async def sleepers(self, request: bytes, context: Context) -> bytes:
        """How many calls sleep right now."""
        return str(self.sleeping).encode()

    async def cancellations(self, request: bytes, context: Context) -> bytes:
        """How many calls were cancelled so far."""
        return str(self.cancelled).encode()

    async def status(self, request: bytes, context: Context) -> bytes:
        """Ends with the code, details and trailers that the metadata asks for."""
        asked = dict(context.invocation_metadata())
        context.set_trailing_metadata((("first", "1"), ("second-bin", b"\x00\xff")))
        await context.abort(grpc.StatusCode[asked["code"]], asked["details-bin"].decode())
        return b""

    async def boom(self, request: bytes, context: Context) -> bytes:
        """An unhandled failure, with a text far too long."""
        raise RuntimeError("boom " * 4000)

    async def exit(self, request: bytes, context: Context) -> bytes:
        """Dies before it answers."""
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    async def upload(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        """The number of messages and of bytes."""
        sizes = [len(request) async for request in requests]
        return f"{len(sizes)} {sum(sizes)}".encode()

    async def count(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        """The numbers below the request, with the pause of the metadata between them."""
        pause_s = float(dict(context.invocation_metadata()).get("pause", 0))
        for number in range(int(request)):
            yield str(number).encode()
            await asyncio.sleep(pause_s)

    async def chat(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Each message back; `exit` kills this process, `deny` ends with UNAUTHENTICATED and `end` with OK, at once."""
        is_over = False
        try:
            async for request in requests:
                if request == b"exit":
                    os.kill(os.getpid(), signal.SIGKILL)
                if request == b"deny":
                    is_over = True
                    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "denied")
                yield request
                if request == b"end":
                    is_over = True
                    return
            # With grpc.aio a cancelled call first looks like one whose caller has ended its side.
            await asyncio.sleep(0.2)
            is_over = True
        finally:
            self.cancelled += not is_over


class Handlers(grpc.GenericRpcHandler):
    """Finds the method by its path."""

    def __init__(self, echo: Echo) -> None:
        unary = ("call", "who", "metadata", "deadline", "sleep", "sleepers", "cancellations", "status", "boom", "exit")
        self._handlers = {
            f"/calls.Echo/{name.capitalize()}": grpc.unary_unary_rpc_method_handler(getattr(echo, name))
            for name in unary
        }
        # A method that every gateway knows to be unary, with the model's name inside its message.
        self._handlers["/inference.GRPCInferenceService/ModelInfer"] = self._handlers["/calls.Echo/Call"]
        self._handlers["/calls.Echo/Upload"] = grpc.stream_unary_rpc_method_handler(echo.upload)
        self._handlers["/calls.Echo/Count"] = grpc.unary_stream_rpc_method_handler(echo.count)
        self._handlers["/calls.Echo/Chat"] = grpc.stream_stream_rpc_method_handler(echo.chat)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """None for an unknown method."""
        return self._handlers.get(details.method)


async def main() -> None:
    """Serve until SIGTERM."""
    size = 2**31 - 1
    options = [
        ("grpc.max_receive_message_length", size),
        ("grpc.max_send_message_length", size),
        ("grpc.max_concurrent_streams", 100_000),
    ]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((Handlers(Echo()),))
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port("0.0.0.0:9000")
    await server.start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await server.stop(5)


asyncio.run(main())
