"""A container's server as the gateway sees one: real grpc.aio, any method, told what to do by its name and metadata.

`python -m tests.integration.grpc_backend PORT` runs it as a process of its own, for tests that kill it.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection

Metadata = dict[str, Any]


@dataclass
class Backend:
    """A running one, and what it saw."""

    port: int = 0
    name: str = "backend"
    seen: list[tuple[str, Metadata, float | None]] = field(default_factory=list)
    """Path, metadata and time remaining of each call."""
    cancelled: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    works_after_end: float = 0
    """How long Echo takes after the caller's last message. A cancel looks like an end first, with grpc.aio."""
    may_go_on: threading.Event = field(default_factory=threading.Event)
    """What the methods called Held wait for."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.seen]


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._looking: asyncio.Task[None] | None = None

    def service(self, details: Any) -> Any:
        path = details.method
        what = path.rpartition("/")[2]
        if path.startswith("/grpc."):
            return None
        method = getattr(self, f"_{what.lower()}", self._echo)

        async def handle(_requests: object, context: Any) -> None:
            metadata = dict(context.invocation_metadata())
            self._backend.seen.append((path, metadata, context.time_remaining()))
            try:
                await method(context, metadata)
                self._backend.finished.append(path)
            except asyncio.CancelledError:
                self._backend.cancelled.append(path)
                raise

        return grpc.stream_stream_rpc_method_handler(handle)

    async def _echo(self, context: Any, metadata: Metadata) -> None:
        """Every message back, with the backend's name in the trailers."""
        if "pause" in metadata:
            await asyncio.sleep(float(metadata["pause"]))
        if "held" in metadata:
            await self._until_allowed()
        context.set_trailing_metadata((("served-by", self._backend.name),))
        while (message := await context.read()) is not grpc.aio.EOF:
            self._backend.received.append(message)
            await context.write(message)
        if self._backend.works_after_end:
            await asyncio.sleep(self._backend.works_after_end)

    async def _metadata(self, context: Any, metadata: Metadata) -> None:
        """What it was told, as JSON; metadata of its own both ways."""
        await context.read()
        await context.send_initial_metadata((("first", "one"), ("bytes-bin", b"\x00\xff")))
        context.set_trailing_metadata((("last", "a"), ("last", "b"), ("more-bin", b"\x01"), ("request_id", "forged")))
        shown = {name: value for name, value in metadata.items() if isinstance(value, str)}
        await context.write(json.dumps(shown).encode())

    async def _fail(self, context: Any, metadata: Metadata) -> None:
        """The status that the metadata asks for."""
        code = grpc.StatusCode[metadata.get("code", "INTERNAL")]
        details = bytes(metadata.get("details-bin", b"")).decode() * int(metadata.get("times", "1"))
        await context.abort(code, details, (("why", "asked"),))

    async def _until_allowed(self) -> None:
        """Wait until the test lets calls go on. One task looks for all: a thousand would keep a CPU busy."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_out())
        await asyncio.shield(self._looking)

    async def _look_out(self) -> None:
        while not self._backend.may_go_on.is_set():
            await asyncio.sleep(0.01)

    async def _held(self, context: Any, _metadata: Metadata) -> None:
        """No answer until the test allows it."""
        message = await context.read()
        await self._until_allowed()
        await context.write(message)

    async def _heldstream(self, context: Any, _metadata: Metadata) -> None:
        """One message at once, and the end once the test allows it."""
        await context.write(b"open")
        await self._until_allowed()

    async def _earlyend(self, context: Any, metadata: Metadata) -> None:
        """One answer to the first message, then the end, whatever the caller still has to say."""
        await context.write(await context.read())
        if "code" in metadata:
            await context.abort(grpc.StatusCode[metadata["code"]], "enough")

    async def _serverfirst(self, context: Any, _metadata: Metadata) -> None:
        """Speaks before it is spoken to."""
        await context.send_initial_metadata((("greeting", "hello"),))
        await context.write(b"welcome")
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(message)

    async def _many(self, context: Any, metadata: Metadata) -> None:
        """As many answers as asked for, of the size asked for."""
        await context.read()
        for _ in range(int(metadata["count"])):
            await context.write(bytes(int(metadata["size"])))
            self._backend.received.append(b"")
        if "code" in metadata:
            await context.abort(grpc.StatusCode[metadata["code"]], "that was all")

    async def _join(self, context: Any, metadata: Metadata) -> None:
        """One answer to many messages."""
        whole = b""
        while (message := await context.read()) is not grpc.aio.EOF:
            whole += message
        await asyncio.sleep(float(metadata.get("pause", "0")))
        await context.write(whole)

    async def _stuck(self, context: Any, _metadata: Metadata) -> None:
        """Never reads."""
        await asyncio.sleep(3600)


@contextmanager
def run_backend(name: str = "backend", *, port: int = 0, reflects: tuple[str, ...] = ()) -> Iterator[Backend]:
    """Serve from a thread while the block is open; `reflects` are services of loaded descriptors that it describes."""
    backend = Backend(name=name)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        server = make_server(backend)
        if reflects:
            reflection.enable_server_reflection([*reflects, reflection.SERVICE_NAME], server)
        backend.port = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        stopping = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), stopping))
        await stopping.wait()
        await server.stop(None)

    thread = threading.Thread(target=asyncio.run, args=(main(),), name=f"backend-{name}", daemon=True)
    thread.start()
    loop, stopping = started.result(60)
    try:
        yield backend
    finally:
        backend.may_go_on.set()
        loop.call_soon_threadsafe(stopping.set)
        thread.join(60)


def make_server(backend: Backend) -> grpc.aio.Server:
    """A server that is not started yet."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
    return grpc.aio.server(handlers=[_Handler(backend)], options=options)


async def _serve_alone(port: int) -> None:
    server = make_server(Backend(name="process"))
    print(server.add_insecure_port(f"127.0.0.1:{port}"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve_alone(int(sys.argv[1])))
