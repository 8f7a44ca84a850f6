"""The limits that a model is registered with, from the registration to the run that hits one.

The rules are the same on PostgreSQL and on SQLite.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from private_api.tasks.attempts import show_assignment
from tests.integration.deployment_harness import DeploymentHarness
from tests.integration.public_door import PLAIN
from tests.integration.task_harness import SIZES, Harness
from tests.running_api import RunningApi
from tests.waiting import wait_until
from tests.zips import make_zip

GIB = 1024**3
ASKED = {"shared_memory_bytes": 4 * GIB, "temporary_bytes": 2 * GIB, "pids_limit": 2048, "cpus": 1.5}
NOTHING = dict.fromkeys(ASKED)


def named(held: Any) -> dict[str, Any]:
    return {name: getattr(held, name) for name in ASKED}


def test_a_consumer_is_told_what_a_tasks_model_asks_for(harness: Harness) -> None:
    harness.register("wide", **ASKED)
    for model, asked in (("echo", NOTHING), ("wide", ASKED)):
        held = harness.claim(uid=harness.submit(model))
        assert named(held) == asked
        assert named(show_assignment(harness.database, held.uid, held.fence, SIZES)) == asked


@pytest.mark.parametrize("asked", [NOTHING, ASKED], ids=["nothing", "all"])
def test_a_consumer_is_told_what_a_replicas_model_asks_for(plane: DeploymentHarness, asked: dict[str, Any]) -> None:
    plane.register("warm", **asked)
    plane.deploy("warm", replicas_min=1)
    plane.scale()
    assert named(plane.claim()) == asked


@pytest.fixture
def http(private_api: RunningApi) -> Iterator[httpx.Client]:
    with private_api.client() as client:
        yield client


def register(http: httpx.Client, **query: object) -> httpx.Response:
    given = {"human_readable_id": "scan", "container_tag": "scan:1", "replace": "true", **query}
    return http.post("/api/models/", params={name: str(value) for name, value in given.items()})


def test_each_version_of_a_model_keeps_its_own(http: httpx.Client) -> None:
    assert register(http).json().items() >= NOTHING.items()
    assert register(http, **ASKED).json().items() >= ASKED.items()
    assert http.get("/api/models/scan").json().items() >= ASKED.items()
    assert http.get("/api/models/scan@1").json().items() >= NOTHING.items()


@pytest.mark.parametrize(
    "wrong",
    [
        {"shared_memory_bytes": 2**20 - 1},
        {"temporary_bytes": 0},
        {"pids_limit": 15},
        {"pids_limit": 2**22 + 1},
        {"cpus": 0},
        {"cpus": "nan"},
        {"cpus": "inf"},
        {"shared_memory_bytes": 2 * GIB, "memory_limit_bytes": GIB},
        {"temporary_bytes": 2 * GIB, "memory_limit_bytes": GIB},
    ],
    ids=str,
)
def test_what_no_run_can_have_is_refused_by_name(http: httpx.Client, wrong: dict[str, object]) -> None:
    answer = register(http, **wrong)
    assert (answer.status_code, answer.json()["error"]) == (422, "InvalidRequest")
    assert next(iter(wrong)) in answer.json()["detail"]
    assert http.get("/api/models/scan").status_code == 550


def test_all_of_the_memory_may_be_for_files(http: httpx.Client) -> None:
    assert register(http, memory_limit_bytes=GIB, shared_memory_bytes=GIB, temporary_bytes=GIB).status_code == 200


MANY = b"#!/bin/sh\nfor i in $(seq 40); do sleep 5 & done; wait; echo done > $OUTPUT_DIR/done.txt\n"


@contextmanager
def standalone(data_dir: Path, *options: str) -> Iterator[httpx.Client]:
    """The command as a user starts it, on a machine without Docker, and its public API."""
    command = [sys.executable, "-m", "operations", "standalone", "--data-dir", str(data_dir), "--port", "0"]
    command += ["--no-grpc", "--engine", "process", *options]
    log = data_dir.with_suffix(".log")
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            wait_until(lambda: b"ready at" in log.read_bytes() or process.poll() is not None, log.read_text)
            url = re.findall(r"ready at (\S+)", log.read_text())[0]
            with httpx.Client(base_url=url, **PLAIN) as http:
                yield http
        finally:
            process.send_signal(signal.SIGINT)


def ended(http: httpx.Client, **query: str) -> dict[str, Any]:
    """The task of a model that starts 40 processes, once it has ended."""
    params = {"human_readable_id": "many", "container_tag": "process:run.sh", "model_available": "true", **query}
    headers = {"Content-Type": "application/zip"}
    body = make_zip({"run.sh": MANY})
    http.post("/api/models/", params={"replace": "true", **params}, content=body, headers=headers).raise_for_status()
    sent = http.post("/api/tasks/?human_readable_id=many", content=make_zip({"a": b""}), headers=headers)
    task: dict[str, Any] = {}

    def look() -> bool:
        task.update(http.get(f"/api/tasks/{sent.json()}/status").raise_for_status().json())
        return task["status"] in ("finished", "failed")

    wait_until(look)
    return task


def test_a_run_that_hits_a_limit_of_standalone_names_the_setting_and_one_that_asks_for_more_has_more(
    tmp_path: Path,
) -> None:
    with standalone(tmp_path / "data", "--pids-limit", "16") as http:
        failed = ended(http)
        assert (failed["status"], failed["reason"]) == ("failed", "exit_code")
        told = "it needed more than the 16 processes and threads that it may have (pids_limit)"
        assert told in failed["detail"]
        assert "register the model with a larger pids_limit" in failed["detail"]
        assert ended(http, pids_limit="64")["status"] == "finished"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--shared-memory", "much"), "'much' is not a size"),
        (("--temporary", "4 apples"), "'4 apples' is not a size"),
        (("--pids-limit", "3"), "greater than or equal to 16"),
        (("--cpus", "0"), "greater than or equal to 0.01"),
    ],
)
def test_an_option_of_standalone_that_makes_no_sense_is_refused(
    tmp_path: Path, options: tuple[str, str], says: str
) -> None:
    command = [sys.executable, "-m", "operations", "standalone", "--data-dir", str(tmp_path / "data"), *options]
    plain = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "data").exists()
