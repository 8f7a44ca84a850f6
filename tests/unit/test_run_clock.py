"""A run has its time by the consumer's own clock, whatever the server's clock says and whichever process watches it."""

import json
import threading
import time
from pathlib import Path

import pytest

from contract.private_client import PrivateClient
from contract.statuses import Reason
from job_consumer.container_spec import Limits, Sandbox
from job_consumer.context import ConsumerContext
from job_consumer.settings import Credential
from job_consumer.tasks.attempt import Attempt
from job_consumer.tasks.run_clock import RunClock
from job_consumer.workspace import WorkDir
from tests.unit.consumer_peer import BEAT_REPLY, MemoryEngine, consumer_peer
from tests.unit.test_side_threads import KEY, task

OVERDUE = BEAT_REPLY | {"seconds_left": -3600}


@pytest.mark.parametrize(("started_before_s", "ends"), [(0.0, Reason.CANCELLED), (61.0, Reason.TIME_LIMIT)])
def test_an_adopted_run_has_what_is_left_of_its_time_whatever_the_server_says(
    tmp_path: Path, started_before_s: float, ends: Reason
) -> None:
    work = WorkDir(tmp_path / "work", "ada")
    clock = work.open_workspace(KEY).clock
    # As an earlier process of the consumer noted it, on the same boot of the machine.
    started = RunClock.open(clock, 60).started
    clock.write_text(json.dumps([json.loads(clock.read_text())[0], started - started_before_s]))
    # After an outage, say: to the server the run is overdue. Its owner cancels it later.
    beats = [OVERDUE, OVERDUE, OVERDUE | {"cancel": True}]
    with consumer_peer(heartbeat=beats, log=[0], failure=[{"status": "failed"}]) as peer:
        with PrivateClient(peer.url, "a-secret-of-the-tests") as api:
            context = ConsumerContext(
                credential=Credential("SERVICE_TOKEN", "a-secret-of-the-tests"),
                sandbox=Sandbox("ada", Limits(1000, None, 3, 400, 5, 6)),
                api=api,
                engine=MemoryEngine(),
                work=work,
                stopping=threading.Event(),
                alive_file=None,
            )
            # It never ends by itself.
            Attempt(context, task(12.0)).resume()
        (failure,) = peer.wait_for("failure", 1)
    assert json.loads(failure)["reason"] == ends


def test_the_start_of_a_run_is_noted_once_and_means_nothing_after_a_reboot(tmp_path: Path) -> None:
    note = tmp_path / "clock.json"
    first = RunClock.open(note, 60)
    assert RunClock.open(note, 60).deadline == first.deadline
    for noted in (json.dumps(["another boot", first.started - 30]), "", "[]", json.dumps([None, "then"])):
        note.write_text(noted)
        before = time.monotonic()
        assert before <= RunClock.open(note, 60).started <= time.monotonic()


def test_a_run_whose_start_cannot_be_noted_has_its_time_all_the_same(tmp_path: Path) -> None:
    clock = RunClock.open(tmp_path / "no folder" / "clock.json", 60)
    assert clock.deadline == clock.started + 60
