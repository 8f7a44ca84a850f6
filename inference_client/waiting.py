"""Waits until a task has ended."""

import time
from collections.abc import Callable

from inference_client.errors import ServiceUnavailable, TaskFailed, WaitTimeout
from inference_client.schemas import TaskView
from inference_client.statuses import Status
from inference_client.terminal_text import printable
from inference_client.units import format_duration

LONG_HOLD_S = 30.0
"""How long the server is asked to hold a status that nobody watches."""
SHORT_HOLD_S = 2.0
"""The same if somebody watches it change."""
OUTAGE_PATIENCE_S = 300.0
"""How long a server that answered before and no longer does keeps being asked."""


def wait_until_ended(
    uid: str,
    ask: Callable[[float], TaskView],
    sleep: Callable[[float], None],
    *,
    timeout_s: float | None,
    on_change: Callable[[TaskView], None] | None,
) -> TaskView:
    """Ask until the task has ended. `ask` takes for how many seconds the server may hold its answer.

    Raises `WaitTimeout`, and what `ask` raises.
    """
    started = answered = time.monotonic()
    hold_s = LONG_HOLD_S if on_change is None else SHORT_HOLD_S
    seen: TaskView | None = None
    while True:
        asked = time.monotonic()
        left_s = hold_s if timeout_s is None else started + timeout_s - asked
        try:
            task = ask(0 if seen is None else max(0.0, min(hold_s, left_s)))
        except ServiceUnavailable:
            if seen is None or time.monotonic() - answered > OUTAGE_PATIENCE_S:
                raise
            continue
        answered = time.monotonic()
        if on_change is not None and task != seen:
            on_change(task)
        if task.has_ended:
            return task
        if timeout_s is not None and left_s <= 0:
            why = f": {task.wait_detail}" if task.wait_detail else ""
            raise WaitTimeout(
                f"the task has not ended within {format_duration(timeout_s)}; it goes on{why}",
                uid=uid,
                status=task.status,
            )
        # A server that does not hold its answer must not be asked without a pause.
        if seen is not None and answered - asked < min(1.0, left_s):
            sleep(1.0)
        seen = task


def failure_of(task: TaskView) -> TaskFailed:
    """The error with which the server would answer a fetch of this task."""
    facts = task.model_dump(mode="json", include={"uid", "status", "reason", "exit_code", "attempt", "log_tail"})
    default = "the task was cancelled" if task.status is Status.CANCELLED else "the task failed"
    failure = TaskFailed(task.detail or default, **facts)
    if task.log_tail:
        # Shown below the error in a traceback, as in a notebook.
        failure.add_note(f"The end of the task's log:\n{printable(task.log_tail)}")
    return failure
