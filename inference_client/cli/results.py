"""From a submitted task to the files on the user's disk: the wait, Ctrl-C during it, and where outputs go."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from inference_client.cli.display import Display
from inference_client.errors import Interrupted, TaskFailed, UnusableInput
from inference_client.schemas import TaskView
from inference_client.statuses import Status
from inference_client.waiting import failure_of

if TYPE_CHECKING:
    from inference_client.client import InferenceClient
    from inference_client.download import OnWarnings

PriorityOption = Annotated[
    int,
    typer.Option(
        min=-100, max=100, help="Tasks with a higher one run first; above 0 needs a key with the scope operate."
    ),
]
TimeoutOption = Annotated[
    str | None,
    typer.Option("--timeout", help="Stop waiting after this long, as in 90, 15m or 2h; nothing is cancelled."),
]


def wait_for_end(client: "InferenceClient", display: Display, uid: str, timeout_s: float | None) -> TaskView:
    """The finished task; its warnings are shown.

    Raises `TaskFailed` if it ended otherwise, `WaitTimeout`, and after Ctrl-C `Interrupted`.
    """
    try:
        with display.show_waiting() as on_change:
            task = client.wait(uid, timeout_s=timeout_s, on_change=on_change)
    except KeyboardInterrupt:
        _leave(client, display, uid)
    if task.status is not Status.FINISHED:
        raise failure_of(task)
    display.show_warnings(task)
    return task


def resolve_target(out: Path, uid: str, *, extract: bool) -> Path:
    """The path an output goes to: OUT itself, or `<uid>.zip` in the folder OUT. Raises `UnusableInput`."""
    from inference_client.download import check_target

    if extract and out.is_file():
        raise UnusableInput(f"{out} is a file; --extract needs a folder, which need not exist")
    inside = out / f"{uid}.zip"
    check_target(inside if out.is_dir() else out)
    return inside if out.is_dir() and not extract else out


def fetch_output(
    client: "InferenceClient",
    display: Display,
    uid: str,
    out: Path,
    *,
    extract: bool,
    on_warnings: "OnWarnings | None" = None,
) -> Path:
    """Fetch the output, unpack it if `extract` says so, and return its path."""
    target = resolve_target(out, uid, extract=extract)
    try:
        with display.show_transfer("fetched") as on_progress:
            return client.fetch(uid, target, on_progress, extract=extract, on_warnings=on_warnings)
    except KeyboardInterrupt as error:
        raise Interrupted(f"nothing was stored; fetch the output with: infer fetch {uid}", uid=uid) from error


def _leave(client: "InferenceClient", display: Display, uid: str) -> NoReturn:
    """Stop waiting after Ctrl-C. The task is cancelled only if the user says so."""
    # A second Ctrl-C at the question ends the command at once: Typer raises Abort.
    if display.can_ask and typer.confirm("Cancel the task?", default=False, err=True):
        if client.cancel(uid).status is Status.FINISHED:
            raise Interrupted(f"the task had finished before that; fetch its output with: infer fetch {uid}", uid=uid)
        raise TaskFailed("the task was cancelled", uid=uid, status=str(Status.CANCELLED))
    raise Interrupted(f"stopped waiting; the task goes on. Wait for it again with: infer wait {uid}", uid=uid)
