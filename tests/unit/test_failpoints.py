"""What `FAIL_AT` does to a process, and that services refuse to start with one they do not know."""

import subprocess
import sys
from pathlib import Path

import pytest

from job_consumer.failpoints import Failpoint as ConsumerPoint
from kit.failpoints import Action
from private_api.failpoints import Failpoint as ApiPoint

REACHES = """
from private_api.failpoints import Failpoint
from kit.failpoints import FailpointReached, reach
reach(Failpoint.SUBMIT_STORED)
for _ in range(2):
    try:
        reach(Failpoint.SUBMIT_RECEIVED)
        print("passed", flush=True)
    except FailpointReached as error:
        print("raised", error, flush=True)
"""
SECRETS = {"SERVICE_TOKEN": "0123456789abcdef" * 2, "RABBIT_PASSWORD": "fedcba9876543210" * 2}


def reach(action: str) -> "subprocess.Popen[str]":
    """A process that passes one point, and another one twice."""
    environment = {"FAIL_AT": f"submit.received:{action}"} if action else {}
    return subprocess.Popen([sys.executable, "-c", REACHES], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("action", "says", "code"),
    [("", "passed\npassed\n", 0), (Action.RAISE, "raised submit.received\npassed\n", 0), (Action.KILL9, "", -9)],
)
def test_a_point_acts_once_and_only_where_it_is_named(action: str, says: str, code: int) -> None:
    with reach(action) as process:
        assert process.communicate()[0] == says
        assert process.returncode == code


def test_a_point_may_stand_still() -> None:
    with reach(Action.HANG) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.kill()
        assert process.communicate()[0] == ""


@pytest.mark.parametrize(
    ("service", "value", "says"),
    [
        ("private_api", "run.ended:kill9", "'run.ended' is none of submit.received, "),
        ("job_consumer", "claim.heard", "write claim.heard: and one of kill9, raise, hang"),
        ("job_consumer", "claim.heard:explode", "write claim.heard: and one of kill9, raise, hang"),
    ],
)
def test_a_service_does_not_start_with_a_point_that_it_does_not_have(
    tmp_path: Path, service: str, value: str, says: str
) -> None:
    environment = {**SECRETS, "POSTGRES_PASSWORD": "abcdef0123456789" * 2, "FAIL_AT": value, "WORK_DIR": str(tmp_path)}
    command = [sys.executable, "-m", service]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"FAIL_AT: {says}" in done.stderr


@pytest.mark.parametrize(("service", "points"), [("private_api", ApiPoint), ("job_consumer", ConsumerPoint)])
def test_every_point_stands_in_the_code_once(service: str, points: type[ApiPoint | ConsumerPoint]) -> None:
    code = "".join(path.read_text() for path in (Path(__file__).parents[2] / service).rglob("*.py"))
    assert [point for point in points if code.count(f"reach(Failpoint.{point.name})") != 1] == []
