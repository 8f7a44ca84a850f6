"""Says how far a run in several processes is, what it is busy with, what failed, and at the end where its time went."""

import threading
import time
from collections import Counter

import pytest

EVERY_S = 60
LISTED = 15
_TOLD = 3000
"""So many characters of a failure are told at once, before the whole of it at the end."""


class Progress:
    """A plugin for the process that the results of all others come to."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter
        self._began_at = time.monotonic()
        self._total = 0
        self._done = 0
        self._running: dict[str, float] = {}
        self._spent_s = Counter[str]()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._total = len(ids)
        if self._thread.ident is None:
            self._thread.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._spent_s[report.nodeid.partition("::")[0]] += report.duration
        if report.failed:
            self._reporter.write_line(f"\n{report.when} failed: {report.nodeid}\n{report.longreprtext[-_TOLD:]}")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)
        self._done += 1

    def pytest_sessionfinish(self) -> None:
        self._stopped.set()

    def pytest_terminal_summary(self) -> None:
        self._reporter.section(f"slowest {LISTED} files")
        for path, spent_s in self._spent_s.most_common(LISTED):
            self._reporter.write_line(f"{spent_s:7.1f}s {path}")

    def _tell(self) -> None:
        while not self._stopped.wait(EVERY_S):
            now = time.monotonic()
            busy = [f"{nodeid} ({now - began_at:.0f} s)" for nodeid, began_at in self._running.copy().items()]
            after = f"after {(now - self._began_at) / 60:.0f} min"
            self._reporter.write_line(f"\n{after}: {self._done} of {self._total}; running: {', '.join(busy)}")
