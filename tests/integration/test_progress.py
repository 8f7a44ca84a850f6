"""How far a run is, as its model says: what the private API keeps of it, and who is told."""

from datetime import timedelta
from pathlib import Path

import pytest

from contract.access import Caller, Scope
from contract.claims import ClaimRequest
from contract.errors import StaleFence
from contract.heartbeats import Heartbeat, Progress
from contract.overview import TaskListQuery
from contract.schemas import TaskView
from contract.statuses import Phase
from inference_client.event_schemas import ProgressEvent
from private_api.placement.outlook import show_task
from private_api.tasks.attempts import beat_task
from private_api.tasks.listing import list_tasks
from tests.integration.task_harness import Harness
from tests.integration.test_events import Listener, door, make_key, submit
from tests.integration.test_waiting import look, poll
from tests.running_api import RunningApi
from tests.waiting import wait_until

__all__ = ["door"]

ADA = Caller("ada", frozenset({Scope.SUBMIT}))
OPERATOR = Caller("olga", frozenset({Scope.OPERATE}))
ADMIN = Caller("otto", frozenset({Scope.ADMIN}))


def tell(harness: Harness, uid: str, fence: int, progress: Progress | None, phase: Phase = Phase.RUNNING) -> None:
    beat_task(harness.database, uid, fence, Heartbeat(consumer="ada", phase=phase, progress=progress))


def told(view: TaskView) -> tuple[float | None, str | None]:
    return view.progress, view.progress_text


def test_progress_is_told_while_the_task_runs(harness: Harness) -> None:
    held = harness.submit_and_claim()
    assert told(look(harness, held.uid)) == (None, None)
    tell(harness, held.uid, held.fence, Progress(fraction=0.42, text="fold 2"))
    assert told(look(harness, held.uid)) == (0.42, "fold 2")
    assert poll(harness, held.uid).to_body()["progress"] == 0.42
    tell(harness, held.uid, held.fence, Progress(fraction=1))
    assert told(look(harness, held.uid)) == (1, None)
    # A consumer of the release before says nothing.
    beat_task(harness.database, held.uid, held.fence, Heartbeat.model_validate({"consumer": "ada", "phase": "running"}))
    assert told(look(harness, held.uid)) == (None, None)
    tell(harness, held.uid, held.fence, Progress(fraction=0.9))
    harness.commit(held)
    assert told(look(harness, held.uid)) == (None, None)


def test_only_the_attempt_that_holds_the_task_tells_its_progress(harness: Harness) -> None:
    held = harness.submit_and_claim()
    tell(harness, held.uid, held.fence, Progress(fraction=0.9, text="nearly"))
    harness.expire(held.uid)
    assert told(look(harness, held.uid)) == (None, None)
    harness.shift(held.uid, not_before=timedelta(hours=-1))
    again = harness.claim("bob", uid=held.uid)
    assert told(look(harness, held.uid)) == (None, None)
    with pytest.raises(StaleFence):
        tell(harness, held.uid, held.fence, Progress(fraction=0.95))
    # What is claimed starts without it, and does not run yet.
    tell(harness, again.uid, again.fence, Progress(fraction=0.1), Phase.PREPARING)
    assert told(look(harness, again.uid)) == (None, None)
    harness.release(again, blameless=True)
    assert told(look(harness, again.uid)) == (None, None)


def test_a_text_becomes_a_short_line_and_is_never_what_a_heartbeat_is_refused_for() -> None:
    wild = "  a\x1b[2J\r\nb\u202e\ud800 \0c  " + "x" * 10**6
    progress = Progress(fraction=0.5, text=wild)
    assert progress.text.startswith("a [2J b c xxx")
    assert len(progress.text) == 120


def test_what_a_model_says_is_for_those_who_may_read_the_task(harness: Harness) -> None:
    held = harness.claim(uid=harness.submit(caller=ADA))
    tell(harness, held.uid, held.fence, Progress(fraction=0.42, text="Jane Doe"))
    for caller, text in ((ADA, "Jane Doe"), (ADMIN, "Jane Doe"), (OPERATOR, None)):
        assert told(show_task(harness.database, harness.logs, held.uid, caller)) == (0.42, text)
        assert [told(view) for view in list_tasks(harness.database, caller, TaskListQuery())] == [(0.42, text)]


def test_progress_is_in_the_stream_of_events(private_api: RunningApi, door: str, tmp_path: Path) -> None:
    keys = {name: make_key(private_api, name) for name in ("ada", "bob")}
    keys["carol"] = make_key(private_api, "carol", Scope.OPERATE)
    uid = submit(door, tmp_path / "in", keys["ada"])
    listeners = {name: Listener(door, key) for name, key in keys.items()}
    listeners["other task"] = Listener(door, keys["ada"], uids=["0" * 64])
    for listener in listeners.values():
        listener.is_connected()
    with private_api.consumer() as consumer:
        held = consumer.claim(ClaimRequest(consumer="holder", uid=uid))
        assert held is not None
        for fraction, text in ((0.1, "fold 1"), (0.42, "fold 2")):
            progress = Progress(fraction=fraction, text=text)
            consumer.beat(uid, held.fence, Heartbeat(consumer="holder", phase=Phase.RUNNING, progress=progress))
            for name in ("ada", "carol"):
                listener = listeners[name]
                wait_until(lambda listener=listener, f=fraction: f in dict(heard(listener)), "the progress")  # type: ignore[misc]
    assert heard(listeners["ada"]) == [(0.1, "fold 1"), (0.42, "fold 2")]
    assert heard(listeners["carol"]) == [(0.1, None), (0.42, None)]
    late = Listener(door, keys["ada"], uids=[uid], types=["progress"])
    wait_until(lambda: heard(late) == [(0.42, "fold 2")], "how far it is now")
    assert heard(listeners["bob"]) == heard(listeners["other task"]) == []
    for listener in (*listeners.values(), late):
        listener.has_left = True


def heard(listener: Listener) -> list[tuple[float, str | None]]:
    events = [event.data for event in listener.of("progress")]
    return [(data.progress, data.progress_text) for data in events if isinstance(data, ProgressEvent)]
