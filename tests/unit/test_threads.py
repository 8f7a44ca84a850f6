"""A supervised thread: what it does with an error nobody foresaw."""

import logging
import sys
import threading
from collections.abc import Callable

import pytest

from kit.loop import Loop
from kit.threads import SupervisedThread
from tests.waiting import PATIENCE_S


def failing(times: int, error: BaseException) -> tuple[Callable[[], None], list[int]]:
    """A piece of work that raises that many times, and the list of its calls."""
    calls: list[int] = []

    def work() -> None:
        calls.append(len(calls))
        if len(calls) <= times:
            raise error

    return work, calls


def join(thread: SupervisedThread) -> None:
    thread.join(PATIENCE_S)
    assert not thread.is_alive


@pytest.mark.parametrize("error", [ValueError("seven"), SystemExit(3)], ids=repr)
def test_work_that_fails_is_logged_with_its_traceback_and_repeated(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    work, calls = failing(2, error)
    thread = SupervisedThread("reader", work, pause_s=0)
    thread.start()
    join(thread)
    assert calls == [0, 1, 2]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert caplog.messages[0] == "the thread reader failed; it is repeated in 0 s"
    assert all(record.exc_info and record.exc_info[1] is error for record in caplog.records)


def test_work_that_must_not_be_repeated_ends_what_depends_on_it(caplog: pytest.LogCaptureFixture) -> None:
    work, calls = failing(sys.maxsize, ValueError("seven"))
    end, ends = failing(1, KeyError("eight"))
    thread = SupervisedThread("reader", work, pause_s=0, on_failure=end)
    thread.start()
    join(thread)
    assert (calls, ends) == ([0], [0, 1])
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


def test_nothing_is_repeated_once_the_thread_is_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    stopped = threading.Event()
    stopped.set()
    work, calls = failing(sys.maxsize, ValueError("seven"))
    thread = SupervisedThread("reader", work, pause_s=PATIENCE_S, stopped=stopped)
    thread.start()
    join(thread)
    assert calls == [0]
    assert caplog.records


def test_a_thread_that_was_never_started_has_ended() -> None:
    join(SupervisedThread("reader", lambda: None))


def test_a_loop_repeats_a_step_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    stepped = threading.Event()
    work, calls = failing(1, ValueError("seven"))

    def step() -> None:
        work()
        stepped.set()

    with Loop("reaper", step, interval_s=0.01):
        assert stepped.wait(PATIENCE_S)
    assert calls[:2] == [0, 1]
    assert len([record for record in caplog.records if record.exc_info]) == 1
