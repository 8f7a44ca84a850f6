"""What people see on stderr: bars and a live line on a terminal, plain lines elsewhere. Results never go here."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from contract.schemas import TaskView
from contract.statuses import Status
from inference_client.pack import OnProgress
from inference_client.units import format_duration, format_size


class Display:
    """Writes to stderr only. `quiet` leaves nothing but errors, for callers that want JSON."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)

    @property
    def can_ask(self) -> bool:
        """Whether somebody can read a question and type the answer."""
        return self._console.is_terminal and sys.stdin is not None and sys.stdin.isatty()

    def say(self, text: str) -> None:
        """One line for people."""
        if not self._quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """One line that also matters to callers of JSON."""
        self._print(f"warning: {text}", style="yellow")

    def show_failure(self, body: Mapping[str, Any]) -> None:
        """An error's body: the detail; of a live call its status and request id; of a failed task the reason, the exit
        code and the end of its log.
        """
        facts = [str(body["reason"])] if body.get("reason") else []
        facts += [f"exit code {body['exit_code']}"] if body.get("exit_code") is not None else []
        facts += [f"request {body['request_id']}"] if body.get("request_id") else []
        known = f" ({', '.join(facts)})" if facts else ""
        code = f"{body['code']}: " if body.get("code") else ""
        self._print(f"infer: {code}{body.get('detail')}{known}", style="red")
        if body.get("log_tail"):
            self._print("--- the end of the task's log ---")
            self._print(str(body["log_tail"]).rstrip("\n"))

    def _print(self, text: str, *, style: str = "") -> None:
        # soft_wrap: a path or a uid that the terminal is too narrow for can still be copied.
        self._console.print(Text(printable(text), style=style), soft_wrap=True)

    @contextmanager
    def show_transfer(self, title: str) -> Iterator[OnProgress]:
        """A bar while bytes move; where there is no terminal, one line at the end."""
        if self._quiet or not self._console.is_terminal:
            moved = 0

            def count(done: int, total: int | None) -> None:
                nonlocal moved
                moved = done

            yield count
            self.say(f"{title}: {format_size(moved)}")
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
        with Progress(*columns, TransferSpeedColumn(), console=self._console) as progress:
            bar = progress.add_task(title, total=None)
            yield lambda done, total: progress.update(bar, completed=done, total=total)

    @contextmanager
    def show_waiting(self) -> Iterator[Callable[[TaskView], None]]:
        """A live line with the place in the queue, the phase and the time in it; else one line per change."""
        if self._quiet or not self._console.is_terminal:
            last = ""

            def report(task: TaskView) -> None:
                nonlocal last
                if (text := describe(task)) != last:
                    self.say(text)
                last = text

            yield report
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            line = progress.add_task("waiting", total=None)
            stage: object = None

            def update(task: TaskView) -> None:
                nonlocal stage
                if stage != (stage := (task.status, task.phase)):
                    progress.reset(line)
                left = f", about {format_duration(task.eta)} left" if task.eta is not None else ""
                progress.update(line, description=printable(describe(task) + left))

            yield update


def describe(task: TaskView) -> str:
    """Where the task stands, in one phrase that changes only when something happens."""
    if task.status is Status.QUEUED:
        return "queued" if task.position is None else f"queued, {task.position} before it"
    words = [str(task.status)]
    if task.status.is_held and task.phase is not None and str(task.phase) != str(task.status):
        words.append(str(task.phase))
    if task.reason is not None and str(task.reason) != str(task.status):
        words.append(str(task.reason))
    if task.status.is_held and task.attempt > 1:
        words.append(f"attempt {task.attempt}")
    if task.cancel_requested and not task.status.is_terminal:
        words.append("being cancelled")
    return ", ".join(words)


def printable(text: str) -> str:
    """`text` without control characters: what a container wrote must not steer the user's terminal."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in text)
