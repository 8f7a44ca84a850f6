"""A batch: one task for each of several cases, under one label. What becomes of one case does not stop the others."""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar

from inference_client.errors import (
    ClientError,
    InferenceError,
    InvalidRequest,
    ReportedError,
    ServiceUnavailable,
    TooLarge,
    WaitTimeout,
)
from inference_client.markup import html_table
from inference_client.outputs import Output
from inference_client.pack import Inputs
from inference_client.progress import NoProgress, ProgressDisplay
from inference_client.schemas import TaskView
from inference_client.statuses import Status
from inference_client.units import format_duration
from inference_client.waiting import OUTAGE_PATIENCE_S, SHORT_HOLD_S, failure_of

C = TypeVar("C", bound=Inputs)
"""A case, as it was given to `map`."""

_WINDOW = 16
"""How many tasks are asked for in a round: they end about in the order in which they were submitted."""
NOT_SUBMITTED = "not submitted"
UNKNOWN = "unknown"
"""Of a case whose task was deleted, or may not be seen any more."""
_ABOUT_THE_CASE = (ClientError, InvalidRequest, TooLarge)
"""Refusals of one case; whatever else a submission raises would meet the next case as well."""


@dataclass(frozen=True)
class BatchCalls:
    """What a batch asks of the server, by the methods of a client."""

    ask: Callable[..., TaskView]
    cancel: Callable[[str], TaskView]
    output: Callable[[str], Output]
    sleep: Callable[[float], None]


@dataclass
class Result(Generic[C]):
    """What became of one case: an output, or an error."""

    case: C
    """As it was given to `map`."""
    uid: str | None
    """None if the case could not be submitted."""
    task: TaskView | None
    """As it ended."""
    error: ReportedError | None
    """Why there is no output; None for a finished task."""
    _fetch: Callable[[], Output] = field(repr=False)
    _output: Output | None = field(default=None, repr=False)

    @property
    def output(self) -> Output:
        """The files, fetched when this is first asked for. Raises `error`, and what `InferenceClient.output` raises."""
        if self.error is not None:
            raise self.error
        if self._output is None:
            self._output = self._fetch()
        return self._output


@dataclass
class _Entry(Generic[C]):
    case: C
    uid: str | None = None
    task: TaskView | None = None
    error: ReportedError | None = None

    @property
    def has_ended(self) -> bool:
        return self.error is not None or (self.task is not None and self.task.has_ended)

    @property
    def status(self) -> str:
        if self.uid is None:
            return NOT_SUBMITTED
        if self.error is not None:
            return UNKNOWN
        return str(self.task.status if self.task else Status.QUEUED)


class Batch(Generic[C]):
    """Tasks that were submitted together. Iterating gives each case's `Result` in their order, once it has ended."""

    def __init__(self, label: str, calls: BatchCalls, display: ProgressDisplay | None = None) -> None:
        self.label = label
        self._calls = calls
        self._display = display or NoProgress()
        self._entries: list[_Entry[C]] = []
        self._results: dict[int, Result[C]] = {}
        self._failing_since: float | None = None

    @property
    def uids(self) -> list[str | None]:
        """By case; None for one that could not be submitted."""
        return [entry.uid for entry in self._entries]

    def submissions(self) -> Iterator[tuple[C, str | None, ReportedError | None]]:
        """Each case with its uid, or with why it was not submitted."""
        return ((entry.case, entry.uid, None if entry.uid else entry.error) for entry in self._entries)

    def submit(
        self, cases: Iterable[C], send: Callable[[C], str], on_submit: Callable[[str], None] | None = None
    ) -> None:
        """Submit each case with `send`, and tell `on_submit` its uid.

        Raises what would stop every case; its note tells what was submitted before.
        """
        cases = list(cases)
        with self._display.counting("sent", len(cases)) as count:
            for number, case in enumerate(cases):
                entry = _Entry(case)
                try:
                    entry.uid = send(case)
                    if on_submit is not None:
                        on_submit(entry.uid)
                except _ABOUT_THE_CASE as error:
                    entry.error = error
                except BaseException as error:
                    error.add_note(f"{number} of {len(cases)} cases were submitted before that; label: {self.label}")
                    raise
                self._entries.append(entry)
                count(number + 1, "sent")

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Result[C]]:
        for number, entry in enumerate(self._entries):
            while not entry.has_ended:
                self._look(entry)
            yield self._result(number)

    def as_ended(self) -> Iterator[Result[C]]:
        """The results in the order in which the cases end."""
        told: set[int] = set()
        while len(told) < len(self._entries):
            ended = [number for number, entry in enumerate(self._entries) if entry.has_ended and number not in told]
            told.update(ended)
            yield from map(self._result, ended)
            if not ended:
                self._look(next(entry for entry in self._entries if not entry.has_ended))

    def wait(self, *, timeout_s: float | None = None) -> "Batch[C]":
        """Block until every case has ended, showing how many have. Raises `WaitTimeout`; the tasks then go on."""
        started = time.monotonic()
        with self._display.counting(self.label, len(self)) as count:
            while left := [entry for entry in self._entries if not entry.has_ended]:
                count(len(self) - len(left), self.summary())
                if timeout_s is not None and time.monotonic() - started >= timeout_s:
                    within = f"within {format_duration(timeout_s)}; they go on"
                    raise WaitTimeout(f"{len(left)} of {len(self)} tasks have not ended {within}", label=self.label)
                self._look(left[0])
            count(len(self), self.summary())
        return self

    def status(self) -> dict[str, int]:
        """How many cases have each status, asked for now."""
        for entry in self._entries:
            if not entry.has_ended:
                self._refresh(entry)
        return self._counts()

    def summary(self) -> str:
        """The same in words, as last seen."""
        return ", ".join(f"{count} {status}" for status, count in self._counts().items())

    def cancel(self) -> dict[str, int]:
        """Cancel every task that has not ended; returns what `status` does."""
        for entry in self._entries:
            if entry.uid is not None and not entry.has_ended:
                entry.task = self._calls.cancel(entry.uid)
        return self._counts()

    def __repr__(self) -> str:
        return f"<Batch {self.label!r}: {self.summary()}>"

    def _repr_html_(self) -> str:
        rows = [
            (str(number), entry.uid or "-", entry.status, self._detail(entry))
            for number, entry in enumerate(self._entries)
        ]
        return html_table(f"{self.label}: {self.summary()}", rows, ("case", "task", "status", "detail"))

    def _counts(self) -> dict[str, int]:
        return dict(Counter(entry.status for entry in self._entries))

    @staticmethod
    def _detail(entry: _Entry[C]) -> str:
        return str(entry.error or (entry.task.detail if entry.task else None) or "")

    def _result(self, number: int) -> Result[C]:
        entry = self._entries[number]
        error = entry.error
        if error is None and entry.task is not None and entry.task.status is not Status.FINISHED:
            error = failure_of(entry.task)
        # Kept: what was fetched once is not fetched again.
        fetch = partial(self._calls.output, entry.uid or "")
        return self._results.setdefault(number, Result(entry.case, entry.uid, entry.task, error, fetch))

    def _look(self, first: _Entry[C]) -> None:
        """Ask for the task that is waited for, and for some of those behind it. The server may be away for a while."""
        asked = time.monotonic()
        try:
            self._refresh(first, hold_s=SHORT_HOLD_S)
            others = [entry for entry in self._entries if not entry.has_ended and entry is not first]
            for entry in others[:_WINDOW]:
                self._refresh(entry)
            self._failing_since = None
        except ServiceUnavailable:
            self._failing_since = self._failing_since or asked
            if time.monotonic() - self._failing_since > OUTAGE_PATIENCE_S:
                raise
        # A server that does not hold its answer must not be asked without a pause.
        if not first.has_ended and time.monotonic() - asked < 1:
            self._calls.sleep(1.0)

    def _refresh(self, entry: _Entry[C], **hold: Any) -> None:
        if entry.uid is None:
            return
        try:
            entry.task = self._calls.ask(entry.uid, **hold)
        except ServiceUnavailable:
            raise
        except InferenceError as error:
            # Deleted meanwhile, for one.
            entry.error = error


def new_label(model: str) -> str:
    """A label that nobody has used, which says what and when."""
    return f"{model} {datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {secrets.token_hex(2)}"
