"""What `run` and `map` show while they work: a bar on a terminal, one line of HTML in a notebook, else nothing.

It shows what is known and no more: bytes that were sent, the place in the queue and what the task waits for, the phase
and the time in it, and how long it will take only if the server can tell.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

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

from inference_client.markup import html_progress
from inference_client.pack import OnProgress
from inference_client.schemas import TaskView
from inference_client.units import format_duration, format_size
from inference_client.wording import describe_with_eta

OnChange = Callable[[TaskView], None]
_SHORTEST_S = 0.1
"""Between two updates of a notebook: each is a message to the browser."""


class ProgressDisplay(Protocol):
    """Shows the steps of a task, each for the time of a block."""

    def transfer(self, title: str) -> AbstractContextManager[OnProgress | None]:
        """Bytes that move; called back with how many have."""

    def waiting(self) -> AbstractContextManager[OnChange | None]:
        """A task that has not ended; called back with each view that differs."""

    def counting(self, title: str, total: int) -> AbstractContextManager[Callable[[int, str], None]]:
        """Things of which `total` are to be done; called back with how many are, and a text."""


def display_for(wanted: bool | None) -> ProgressDisplay:
    """The display for where this runs: none if `wanted` is False, or where nobody would see it."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if wanted is False:
        return NoProgress()
    if console.is_jupyter:
        return NotebookProgress()
    return TerminalProgress(console) if wanted or console.is_terminal else NoProgress()


class NoProgress:
    """Shows nothing."""

    @contextmanager
    def transfer(self, title: str) -> Iterator[OnProgress | None]:
        """Nothing."""
        yield None

    @contextmanager
    def waiting(self) -> Iterator[OnChange | None]:
        """Nothing: the server is then asked less often."""
        yield None

    @contextmanager
    def counting(self, title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """Nothing."""
        yield lambda done, text: None


class TerminalProgress:
    """Bars and a live line on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def transfer(self, title: str) -> Iterator[OnProgress]:
        """A bar while bytes move."""
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
        with Progress(*columns, TransferSpeedColumn(), console=self._console) as progress:
            bar = progress.add_task(title, total=None)
            yield lambda done, total: progress.update(bar, completed=done, total=total)

    @contextmanager
    def waiting(self) -> Iterator[OnChange]:
        """A live line with the place in the queue, the phase and the time in it."""
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            line = progress.add_task("waiting", total=None)
            stage: object = None

            def update(task: TaskView) -> None:
                nonlocal stage
                if stage != (stage := (task.status, task.phase)):
                    progress.reset(line)
                progress.update(line, description=describe_with_eta(task))

            yield update

    @contextmanager
    def counting(self, title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """A bar of things."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
        )
        with Progress(*columns, TimeElapsedColumn(), console=self._console) as progress:
            bar = progress.add_task(title, total=total)
            yield lambda done, text: progress.update(bar, completed=done, description=text)


class NotebookProgress:
    """One line of HTML, which is replaced; it needs no widgets."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown_at = 0.0

    @contextmanager
    def transfer(self, title: str) -> Iterator[OnProgress]:
        """A bar while bytes move."""

        def update(done: int, total: int | None) -> None:
            of = f" of {format_size(total)}" if total is not None else ""
            self._show(html_progress(f"{title} {format_size(done)}{of}", done, total), is_last=done == total)

        yield update

    @contextmanager
    def waiting(self) -> Iterator[OnChange]:
        """Where the task stands."""
        began = time.monotonic()

        def update(task: TaskView) -> None:
            waited = format_duration(time.monotonic() - began)
            self._show(html_progress(f"{describe_with_eta(task)} ({waited})"), is_last=True)

        yield update

    @contextmanager
    def counting(self, title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """A bar of things."""
        yield lambda done, text: self._show(html_progress(f"{text}: {done} of {total}", done, total), is_last=True)

    def _show(self, html: str, *, is_last: bool) -> None:
        now = time.monotonic()
        if not is_last and now - self._shown_at < _SHORTEST_S:
            return
        # Only a notebook gets here, and a notebook has it.
        from IPython.display import HTML, display

        self._shown_at = now
        if self._handle is None:
            self._handle = display(HTML(html), display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(HTML(html))  # type: ignore[no-untyped-call]
