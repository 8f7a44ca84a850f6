"""The whole job in one call: submit, wait, fetch."""

from collections.abc import Callable
from contextlib import suppress

from inference_client.errors import ReportedError
from inference_client.outputs import Output
from inference_client.progress import ProgressDisplay
from inference_client.schemas import TaskView
from inference_client.statuses import Status
from inference_client.waiting import failure_of


def run_task(
    display: ProgressDisplay,
    *,
    submit: Callable[..., str],
    wait: Callable[..., TaskView],
    cancel: Callable[[str], object],
    output: Callable[..., Output],
) -> Output:
    """The output of a new task. Raises `TaskFailed` and what the four raise; interrupted, it cancels the task."""
    with display.transfer("sent") as on_progress:
        uid = submit(on_progress=on_progress)
    try:
        with display.waiting() as on_change:
            task = wait(uid, on_change=on_change)
    except BaseException as error:
        # Nobody else knows its uid.
        if not isinstance(error, Exception):
            with suppress(ReportedError):
                cancel(uid)
        raise
    if task.status is not Status.FINISHED:
        raise failure_of(task)
    with display.transfer("fetched") as on_progress:
        return output(uid, on_progress=on_progress)
