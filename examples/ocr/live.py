"""The same networks kept loaded: single pages through `ocr.Reader`, whole tasks through `inferenceserver.Tasks`."""

import io
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import ocr_pb2 as pages
import ocr_pb2_grpc
import tasks_pb2 as tasks
import tasks_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from ocr import MAX_PAGE_PIXELS, read_lines, read_task, to_rgb
from PIL import Image, ImageOps
from rapidocr import RapidOCR

PORT = 9000
TASKS_DIR = Path("/tasks")
GRACE_S = 8
THREADS = 16
SERVICES = ("ocr.Reader", "inferenceserver.Tasks")
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
]


class SharedReader:
    """Lets one caller in at a time: the networks use every processor for a single page."""

    def __init__(self, reader: RapidOCR) -> None:
        self._reader = reader
        self._lock = threading.Lock()

    def __call__(self, image: Any) -> Any:
        """The lines of one page, as rapidocr gives them."""
        with self._lock:
            return self._reader(image)


class Reader(ocr_pb2_grpc.ReaderServicer):
    """Reads single pages."""

    def __init__(self, reader: SharedReader) -> None:
        self._reader = reader

    def Read(self, request: pages.Page, context: grpc.ServicerContext) -> pages.Text:
        """The lines of one page image."""
        try:
            with Image.open(io.BytesIO(request.image)) as opened:
                if opened.width * opened.height > MAX_PAGE_PIXELS:
                    raise ValueError(f"{opened.width}x{opened.height} pixels, at most {MAX_PAGE_PIXELS} are accepted")
                image = to_rgb(ImageOps.exif_transpose(opened))
        # Pillow's decoders raise nearly any exception on damaged files.
        except Exception as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"this page cannot be decoded: {error}")
        text = pages.Text(width=image.width, height=image.height)
        for line in read_lines(self._reader, image):
            added = text.lines.add(text=line["text"], confidence=line["confidence"])
            for x, y in line["box"]:
                added.box.add(x=x, y=y)
        return text


class Tasks(tasks_pb2_grpc.TasksServicer):
    """Runs whole tasks, as the container does when it is started for one."""

    def __init__(self, reader: SharedReader) -> None:
        self._reader = reader

    def Run(self, request: tasks.RunRequest, context: grpc.ServicerContext) -> tasks.RunReply:
        """Read all pages of the input folder."""
        source, target = Path(request.input_dir), Path(request.output_dir)
        progress = [Path(request.progress_file).parent] if request.progress_file else []
        for folder in (source, target, *progress):
            # Whoever calls, only the folders of one run may be touched.
            if folder.parent.parent != TASKS_DIR or Path(os.path.realpath(folder)) != folder:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"all folders must be {TASKS_DIR}/<folder>/<run>")

        def open_shared() -> Any:
            return _Cancellable(self._reader, context)

        try:
            read_task(source, target, open_shared, request.progress_file)
        except SystemExit as ended:
            print(ended, flush=True)
            return tasks.RunReply(exit_code=1, detail=str(ended)[:4096])
        return tasks.RunReply(exit_code=0)


class _Cancellable:
    """A reader that stops between pages once nobody waits for the task."""

    def __init__(self, reader: SharedReader, context: grpc.ServicerContext) -> None:
        self._reader = reader
        self._context = context

    def __call__(self, image: Any) -> Any:
        if not self._context.is_active():
            raise SystemExit("cancelled")
        return self._reader(image)


def serve_pages(reader: RapidOCR) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    shared = SharedReader(reader)
    server = grpc.server(ThreadPoolExecutor(THREADS), options=OPTIONS)
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    ocr_pb2_grpc.add_ReaderServicer_to_server(Reader(shared), server)
    tasks_pb2_grpc.add_TasksServicer_to_server(Tasks(shared), server)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    server.add_insecure_port(f"[::]:{PORT}")
    server.start()
    for name in SERVICES:
        checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    print(f"serving {', '.join(SERVICES)} on port {PORT}", flush=True)
    stopped.wait()
    checks.enter_graceful_shutdown()
    server.stop(GRACE_S).wait()
