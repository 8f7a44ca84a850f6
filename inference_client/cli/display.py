"""What people see on stderr: bars and a live line on a terminal, plain lines elsewhere. Results go to stdout."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text

from inference_client.pack import OnProgress
from inference_client.schemas import TaskView
from inference_client.terminal_text import one_line, printable
from inference_client.units import format_size
from inference_client.wording import describe

_MOST_WARNINGS = 10


class Display:
    """Writes to stderr only. `quiet` leaves warnings and errors, for callers that want JSON."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)

    @property
    def can_ask(self) -> bool:
        """Whether somebody can read a question and type the answer."""
        return self._console.is_terminal and sys.stdin is not None and sys.stdin.isatty()

    def say(self, text: str) -> None:
        """Show one line, unless quiet."""
        if not self._quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """Show one line, even if quiet."""
        self._print(f"warning: {text}", style="yellow")

    def show_warnings(self, task: TaskView, *, of: str = "") -> None:
        """The first warnings of a finished task, even if quiet: a line each, which `of` begins."""
        for text in task.warnings[:_MOST_WARNINGS]:
            self.warn(of + one_line(text))
        if task.warnings and (left := task.warning_count - _MOST_WARNINGS) > 0:
            self._print(f"{of}and {left} more: infer status {task.uid} --json", style="yellow")

    def show_failure(self, body: Mapping[str, Any]) -> None:
        """An error's body: the detail; of a live call its status and request id; of a failed task the reason, the exit
        code and the end of its log.
        """
        facts = [str(body["reason"])] if body.get("reason") else []
        facts += [f"exit code {body['exit_code']}"] if body.get("exit_code") is not None else []
        facts += [f"request {body['request_id']}"] if body.get("request_id") else []
        known = f" ({', '.join(facts)})" if facts else ""
        code = f"{body['code']}: " if body.get("code") else ""
        said, _, advice = str(body.get("detail")).partition("\n")
        self._print(f"infer: {code}{said}{known}", style="red")
        if advice:
            self._print(advice)
        if body.get("did_you_mean"):
            self._print(f"Did you mean: {', '.join(body['did_you_mean'])}?")
        if body.get("log_tail"):
            self._print("--- the end of the task's log ---")
            self._print(str(body["log_tail"]).rstrip("\n"))

    def _print(self, text: str, *, style: str = "") -> None:
        # soft_wrap: a path or a uid that the terminal is too narrow for can still be copied.
        self._console.print(Text(printable(text), style=style), soft_wrap=True)

    @contextmanager
    def show_transfer(self, title: str) -> Iterator[OnProgress]:
        """A bar while bytes move; without a terminal, one line at the end."""
        if self._quiet or not self._console.is_terminal:
            moved = 0

            def count(done: int, total: int | None) -> None:
                nonlocal moved
                moved = done

            yield count
            self.say(f"{title}: {format_size(moved)}")
            return
        from inference_client.progress import TerminalProgress

        with TerminalProgress(self._console).transfer(title) as on_progress:
            yield on_progress

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
        from inference_client.progress import TerminalProgress

        with TerminalProgress(self._console).waiting() as on_change:
            yield on_change
