"""A replica with a service of its user's own: real grpc.aio, on a thread, and described by reflection."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection

from tests.stubs import TESTS, load_stubs

LABELER = "acme.Labeler"


def labeler_stubs() -> Any:
    return load_stubs(TESTS, "labeler")


def labeler_servicer(name: str = "") -> Any:
    """Answers say `name`, if it has one, and what metadata came along is kept in `seen`."""
    stubs = labeler_stubs()
    answer = stubs.messages.Answer

    class Labeler(stubs.services.LabelerServicer):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.seen: list[dict[str, Any]] = []
            self.cancelled = threading.Event()

        def note(self, context: Any) -> None:
            self.seen.append(dict(context.invocation_metadata()))

        async def Label(self, request: Any, context: Any) -> Any:  # noqa: N802
            self.note(context)
            if request.name == "bad":
                context.set_trailing_metadata((("hint", "try another"),))
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no picture of that name")
            if request.name == "slow":
                await asyncio.sleep(60)
            made = answer(label=f"{name}{request.name}", count=len(request.pixels))
            made.at.FromSeconds(0)
            return made

        async def Explain(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
            self.note(context)
            for number in range(3):
                yield answer(label=f"{name}{request.name}", count=number)

        async def Count(self, requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802
            self.note(context)
            return answer(count=len([request async for request in requests]))

        async def Chat(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
            self.note(context)
            try:
                async for request in requests:
                    if request.name == "enough":
                        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no more of that")
                    yield answer(label=f"{name}{request.name}")
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

    return Labeler()


def add_labeler(server: grpc.aio.Server, servicer: Any, *, described: bool = True) -> None:
    stubs = labeler_stubs()
    stubs.services.add_LabelerServicer_to_server(servicer, server)
    if described:
        reflection.enable_server_reflection((LABELER, reflection.SERVICE_NAME), server)


def descriptor_of(name: str) -> FileDescriptorProto:
    """The labeler's file as a proto, to be changed by who needs another one of the same name."""
    proto = FileDescriptorProto()
    labeler_stubs().messages.DESCRIPTOR.CopyToProto(proto)
    proto.name = name
    return proto


class Replica:
    """A grpc.aio server on a loop and a thread of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def running_replica(*adders: Any) -> Iterator[Replica]:
    """A server with what `adders` add to it, for the time of the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        for add in adders:
            add(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
    try:
        yield Replica(port)
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
