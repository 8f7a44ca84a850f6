"""Runs that an earlier release of the process engine left on disk are found, waited for and removed by this one."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from job_consumer.engines import ExitState, Interruption, RunKey, RunState
from job_consumer.engines.process.engine import ProcessEngine
from tests.waiting import PATIENCE_S

KEY = RunKey("ab" * 32, 3)
# As earlier releases wrote it: do not change it with the code.
SPEC = {
    "uid": KEY.uid,
    "fence": 3,
    "consumer": "ada",
    "interpreter": [],
    "program": "run.sh",
    "model": {"source": "/work/models/cd", "target": "/model", "read_only": True},
    "folders": [{"source": "/work/models/cd", "target": "/model", "read_only": True}],
    "environment": {"INFERENCE_SERVER_RUN": f"is-{KEY.uid}-3"},
    "memory_limit_bytes": 1000,
    "pids_limit": 10,
    "log_limit_bytes": 1000,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that was started."""
    folder = tmp_path / "runs" / f"is-{KEY.uid}-3"
    (folder / "tmp").mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps(SPEC))
    (folder / "log").write_text("forty-two\n")
    (folder / "pid").write_text(str(os.getpid()))
    return folder


@contextmanager
def supervised(folder: Path) -> Iterator[None]:
    """What holds the lock is alive."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_a_run_whose_supervisor_lives_is_running_until_its_exit_is_written(run: Path) -> None:
    engine = ProcessEngine(work_dir=run.parent.parent)
    with supervised(run):
        assert engine.find("ada") == [(KEY, RunState.RUNNING)]
        assert engine.find("ben") == []
        assert engine.wait(KEY, 0) is None
        (run / "exit.json").write_text('{"exit_code": 3, "out_of_memory": false}')
        assert engine.find("ada") == [(KEY, RunState.EXITED)]
        assert engine.wait(KEY, 0) == ExitState(3, out_of_memory=False)


def test_a_run_whose_supervisor_died_counts_as_killed_and_what_it_left_is_killed(run: Path) -> None:
    orphan = subprocess.Popen([sys.executable, "-c", "input()"], env=SPEC["environment"], stdin=subprocess.PIPE)  # type: ignore[arg-type]
    engine = ProcessEngine(work_dir=run.parent.parent)
    assert engine.find("ada") == [(KEY, RunState.EXITED)]
    assert engine.wait(KEY, 0) == ExitState(137, out_of_memory=False, interruption=Interruption.OUTSIDE)
    assert orphan.wait(PATIENCE_S) == -9
    orphan.communicate()
    engine.remove(KEY)
    assert not run.exists()
