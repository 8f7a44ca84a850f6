"""`inferenceserver.Tasks`: each file of a task's input is one request; its answer is a file of the same name."""

import asyncio
import contextlib
import os
from collections import deque
from pathlib import Path

import grpc
import tasks_pb2 as messages
import tasks_pb2_grpc

from redhare_runtime.batches import Inbox, KernelFailed, Request

WINDOW = 32
"""Files that the kernel has at once: enough for full batches. No more are held in memory."""


class Tasks(tasks_pb2_grpc.TasksServicer):
    """Runs tasks through the kernel, which is loaded already."""

    def __init__(self, inbox: Inbox, root: Path) -> None:
        self._inbox = inbox
        self._root = root

    async def Run(self, request, context):
        """Answer each file of the input; the first that fails ends the task."""
        source, target = Path(request.input_dir), Path(request.output_dir)
        progress = Path(request.progress_file) if request.progress_file else None
        folders = [source, target] + ([progress.parent] if progress else [])
        if not all(_is_run_folder(self._root, folder) for folder in folders):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"all folders must be {self._root}/<folder>/<run>")
        files = await asyncio.to_thread(_list_files, source)
        if not files:
            return messages.RunReply(
                exit_code=1, detail="the input has no file: each file is one request to the kernel"
            )
        return await self._run(files, source, target, progress, request.task_uid)

    async def _run(self, files: list[Path], source: Path, target: Path, progress: Path | None, uid: str):
        done = 0
        running: deque[tuple[Path, Request]] = deque()
        waiting = iter(files)
        try:
            while True:
                while len(running) < WINDOW and (file := next(waiting, None)) is not None:
                    request = Request(await asyncio.to_thread((source / file).read_bytes), uid)
                    running.append((file, request))
                    self._inbox.put(request)
                if not running:
                    return messages.RunReply(exit_code=0)
                name, oldest = running[0]
                try:
                    answer = await oldest.answer
                except KernelFailed as failed:
                    return messages.RunReply(exit_code=1, detail=f"{name}: the kernel failed: {failed}"[:4096])
                await asyncio.to_thread(_write, target / name, answer)
                running.popleft()
                done += 1
                if progress:
                    await asyncio.to_thread(_say, progress, done, len(files))
        finally:
            for _, request in running:
                request.gone = True


def _is_run_folder(root: Path, folder: Path) -> bool:
    """Whether this is the folder of a single run: no caller reaches any other."""
    return folder.is_dir() and folder.parent.parent == root and Path(os.path.realpath(folder)) == folder


def _list_files(source: Path) -> list[Path]:
    return sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file() and not path.is_symlink())


def _say(path: Path, done: int, total: int) -> None:
    # It adds nothing to the output.
    with contextlib.suppress(OSError):
        path.write_text(f"{done / total} {done} of {total} files\n")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
