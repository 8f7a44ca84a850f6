"""Puts the parts together: the server in a thread of its own, the kernel in the thread that called `run`."""

import asyncio
import logging
import os
import signal
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc
import stream_pb2
import stream_pb2_grpc
import tasks_pb2
import tasks_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from redhare_runtime.batches import Inbox
from redhare_runtime.model import Model, read_model
from redhare_runtime.streams import Inference, StreamAccess
from redhare_runtime.tasks import Tasks

PORT = 9010
TASKS_DIR = Path("/tasks")
GRACE_S = 8
"""How long open streams may continue after TERM. Docker kills after 10 s unless it is told otherwise."""
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # On by default, and then a second server on the port silently gets half of the connections.
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
]
SERVICES = (
    stream_pb2.DESCRIPTOR.services_by_name["Inference"].full_name,
    tasks_pb2.DESCRIPTOR.services_by_name["Tasks"].full_name,
)

logger = logging.getLogger(__name__)


def serve_kernel(kernel: Any) -> None:
    """Start the kernel, serve until TERM, shut the kernel down. Ends the process if the kernel or the server ends."""
    model, access, inbox = read_model(), read_access(), Inbox()
    kernel.on_kernel_start(model.context())
    server = Server(inbox, access, int(os.environ.get("PORT") or PORT), Path(os.environ.get("TASKS_DIR") or TASKS_DIR))
    server.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    logger.info("%s is served on port %s", model.kernel_file, server.port)
    try:
        _work(kernel, inbox, model)
    finally:
        kernel.on_kernel_shutdown()
    if server.has_failed:
        sys.exit("error: the server failed; the traceback above says why")
    logger.info("ended")


def read_access() -> StreamAccess:
    """Which tokens open a stream, by the environment. Ends the process if it does not say."""
    key, deployment = os.environ.get("STREAM_TOKEN_KEY", ""), os.environ.get("DEPLOYMENT", "")
    if key == "open":
        logger.warning("STREAM_TOKEN_KEY=open: whoever reaches the port may stream; set a key to change that")
        return StreamAccess(None, deployment)
    try:
        secret = bytes.fromhex(key)
    except ValueError:
        secret = b""
    if len(secret) < 16 or not deployment:
        sys.exit("error: STREAM_TOKEN_KEY (hex) and DEPLOYMENT must be set; STREAM_TOKEN_KEY=open serves everyone")
    return StreamAccess(secret, deployment)


def _work(kernel: Any, inbox: Inbox, model: Model) -> None:
    try:
        inbox.work(kernel.on_task_invoke, model)
    except SystemExit as ended:
        # Exit code 0 in the middle of a request would look like an intended end.
        sys.exit(ended.code or "error: the kernel ended the process")


class Server:
    """The gRPC server, in the thread of its event loop. Where that thread fails, the kernel's loop is ended too."""

    def __init__(self, inbox: Inbox, access: StreamAccess, port: int, tasks_dir: Path) -> None:
        self.port = port
        self._inbox = inbox
        self._access = access
        self._tasks_dir = tasks_dir
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="server")
        # A kernel that ends the process must not be held up by open streams.
        self._thread.daemon = True
        self._listening: Future[None] = Future()
        self.has_failed = False

    def start(self) -> None:
        """Start to listen. Raises whatever prevents it."""
        self._thread.start()
        self._listening.result(30)

    def stop(self) -> None:
        """Refuse new calls, give open ones their time, then close the inbox. Returns at once."""
        self._loop.call_soon_threadsafe(self._stopping.set)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException:
            logger.exception("the server failed, so the process ends")
            self.has_failed = True
            self._inbox.close()

    async def _serve(self) -> None:
        server = grpc.aio.server(options=OPTIONS)
        checks = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        stream_pb2_grpc.add_InferenceServicer_to_server(Inference(self._inbox, self._access), server)
        tasks_pb2_grpc.add_TasksServicer_to_server(Tasks(self._inbox, self._tasks_dir), server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        try:
            self.port = server.add_insecure_port(f"[::]:{self.port}")
            await server.start()
            for name in ("", *SERVICES):
                await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
        except BaseException as error:
            self._listening.set_exception(error)
            raise
        self._listening.set_result(None)
        await self._stopping.wait()
        await checks.enter_graceful_shutdown()
        await server.stop(GRACE_S)
        self._inbox.close()
