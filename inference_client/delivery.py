"""From a submitted task to the files on the user's disk: waiting, what Ctrl-C means meanwhile, and where outputs go."""

import tempfile
from pathlib import Path
from typing import NoReturn

import typer

from contract.errors import TaskFailed
from contract.schemas import TaskView
from contract.statuses import Status
from inference_client.client import InferenceClient
from inference_client.display import Display
from inference_client.download import check_target
from inference_client.errors import Interrupted, UnusableInput
from inference_client.unpack import unpack_zip


def wait_for_end(client: InferenceClient, display: Display, uid: str, timeout_s: float | None) -> TaskView:
    """The finished task. Raises `TaskFailed` however else it ended, `WaitTimeout`, or `Interrupted` after Ctrl-C."""
    try:
        with display.show_waiting() as on_change:
            task = client.wait(uid, timeout_s=timeout_s, on_change=on_change)
    except KeyboardInterrupt:
        _leave(client, display, uid)
    if task.status is not Status.FINISHED:
        raise failure_of(task)
    return task


def failure_of(task: TaskView) -> TaskFailed:
    """The error the server would answer a fetch of this task with."""
    facts = task.model_dump(mode="json", include={"uid", "status", "reason", "exit_code", "attempt", "log_tail"})
    default = "the task was cancelled" if task.status is Status.CANCELLED else "the task failed"
    return TaskFailed(task.detail or default, **facts)


def resolve_target(out: Path, uid: str, *, extract: bool) -> Path:
    """The path an output goes to: OUT itself, or `<uid>.zip` in the folder OUT. Raises `UnusableInput`."""
    if extract and out.is_file():
        raise UnusableInput(f"{out} is a file; --extract needs a folder, which need not exist")
    inside = out / f"{uid}.zip"
    check_target(inside if out.is_dir() else out)
    return inside if out.is_dir() and not extract else out


def fetch_output(client: InferenceClient, display: Display, uid: str, out: Path, *, extract: bool) -> Path:
    """Fetch the output, unpack it if asked to, and return where it is."""
    target = resolve_target(out, uid, extract=extract)
    try:
        with display.show_transfer("fetched") as on_progress:
            if not extract:
                return client.fetch(uid, target, on_progress)
            # Beside the folder: the same disk, and nothing half-made inside it.
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".infer-") as scratch:
                archive = client.fetch(uid, Path(scratch) / "output.zip", on_progress)
                unpack_zip(archive, target)
                return target
    except KeyboardInterrupt as error:
        raise Interrupted(f"nothing was stored; fetch the output with: infer fetch {uid}", uid=uid) from error


def _leave(client: InferenceClient, display: Display, uid: str) -> NoReturn:
    """What Ctrl-C does while waiting: never end a task that nobody asked to end."""
    # A second Ctrl-C at the question leaves at once, as typer's Abort.
    if display.can_ask and typer.confirm("Cancel the task?", default=False, err=True):
        if client.cancel(uid).status is Status.FINISHED:
            raise Interrupted(f"the task had finished before; its output: infer fetch {uid}", uid=uid)
        raise TaskFailed("the task was cancelled", uid=uid, status=str(Status.CANCELLED))
    raise Interrupted(f"stopped waiting; the task goes on: infer wait {uid}", uid=uid)
