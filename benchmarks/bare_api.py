"""The smallest FastAPI app that does what a yardstick has to: it answers a poll, and makes a post durable.

`benchmarks.posts` and `benchmarks.pollers` start it as a process: `python -m benchmarks.bare_api PORT FOLDER`.
"""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from tests.e2e.processes import Process
from tests.e2e.systems import free_port
from tests.services import listens
from tests.waiting import wait_until

_PENDING = {"error": "TaskPending", "detail": "the task is queued", "status": "queued", "position": 0, "eta": None}


def create_app(folder: Path) -> FastAPI:
    """The app; posts are files of the folder."""
    app = FastAPI()

    @app.get("/api/tasks/{uid}")
    async def poll(uid: str) -> JSONResponse:
        return JSONResponse({**_PENDING, "uid": uid}, 551)

    @app.post("/api/tasks/")
    async def post(request: Request) -> str:
        return await run_in_threadpool(_keep, folder, await request.body())

    return app


def _keep(folder: Path, body: bytes) -> str:
    """Write a file and sync it, and then the folder."""
    uid = secrets.token_hex(32)
    for path, data, flags in ((folder / uid, body, os.O_WRONLY | os.O_CREAT), (folder, b"", os.O_RDONLY)):
        fd = os.open(path, flags, 0o600)
        try:
            if data:
                os.write(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
    return uid


@contextmanager
def bare_api(folder: Path) -> Iterator[int]:
    """Its port, while the block is open."""
    port, kept = free_port(), folder / "bare"
    kept.mkdir()
    command = [sys.executable, "-m", "benchmarks.bare_api", str(port), str(kept)]
    process = Process("bare", command, {}, folder / "bare.log")
    process.start()
    try:
        wait_until(lambda: listens(f"http://127.0.0.1:{port}", port), process.output)
        yield port
    finally:
        process.end()


if __name__ == "__main__":
    uvicorn.run(create_app(Path(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
