"""Where a task stands, in the words that people read on every surface."""

from inference_client.schemas import TaskView
from inference_client.statuses import Status
from inference_client.terminal_text import printable
from inference_client.units import format_duration


def describe(task: TaskView) -> str:
    """Where the task stands, in one phrase that changes only when something happens."""
    if task.status is Status.QUEUED:
        place = "queued" if task.position is None else f"queued, {task.position} before it"
        return place if task.wait_detail is None else f"{place}: {printable(task.wait_detail)}"
    words = [str(task.status)]
    if task.status.is_held and task.phase is not None and str(task.phase) != str(task.status):
        words.append(str(task.phase) if task.pull_percent is None else "pulling the image")
    if task.reason is not None and str(task.reason) != str(task.status):
        words.append(str(task.reason))
    if task.status.is_held and task.attempt > 1:
        words.append(f"attempt {task.attempt}")
    if task.cancel_requested and not task.status.is_terminal:
        words.append("being cancelled")
    return ", ".join(words)


def describe_with_eta(task: TaskView) -> str:
    """The same, with how far the pull of its image or its run is, and how long it will take if the server can tell."""
    done = "" if task.pull_percent is None else f", {task.pull_percent} %"
    if task.progress is not None:
        done = f", {describe_progress(task.progress, task.progress_text)}"
    left = f", about {format_duration(task.eta)} left" if task.eta is not None else ""
    return printable(describe(task) + done + left)


def describe_progress(progress: float, text: str | None) -> str:
    """How far a run is, in whole percent: 100 only at the end."""
    return f"{int(100 * progress + 1e-9)} %" + (f" ({text})" if text else "")
