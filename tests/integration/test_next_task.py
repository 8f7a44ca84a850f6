"""When a consumer takes its next task: at a bell as soon as no run is left, and without one once an attempt is over."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from contract.broker import CPU_QUEUE
from contract.schemas import Commit
from job_consumer import worker
from job_consumer.tasks import attempt
from job_consumer.tasks.attempt import upload_output
from tests.integration.lab import Lab, open_lab
from tests.waiting import PATIENCE_S, wait_until


@pytest.fixture
def lab(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    # Its own poll helps no test.
    monkeypatch.setattr(worker, "POLL_S", 3600.0)
    with open_lab(sqlite_url, tmp_path) as opened:
        yield opened


def test_a_task_whose_bell_was_lost_is_claimed_when_the_attempt_before_it_is_over(lab: Lab) -> None:
    first, second = lab.submit(2)
    for _ in (first, second):
        bell = lab.api.broker.receive([CPU_QUEUE], PATIENCE_S)
        assert bell is not None
        bell.ack()
    with lab.consumer("ada"):
        wait_until(lambda: lab.status(second) == "finished", lambda: f"{lab.status(first)}, {lab.status(second)}")


def test_a_bell_is_heard_while_the_output_before_it_is_delivered(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    may_go_on = Event()

    def upload_later(context: Any, key: Any, *rest: Any, **options: Any) -> Commit:
        begun.append(key.uid)
        assert may_go_on.wait(PATIENCE_S)
        return upload_output(context, key, *rest, **options)

    monkeypatch.setattr(attempt, "upload_output", upload_later)
    with lab.consumer("ada"):
        (first,) = lab.submit(1)
        wait_until(lambda: begun == [first], "its delivery to begin")
        (second,) = lab.submit(1)
        wait_until(lambda: lab.status(second) == "running", lambda: lab.status(second))
        may_go_on.set()
        wait_until(lambda: lab.count_finished() == 2, "both to finish")
        assert begun == [first, second]
