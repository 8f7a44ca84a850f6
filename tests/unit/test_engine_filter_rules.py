"""What the filter before the Docker Engine lets through, and what it refuses."""

import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from job_consumer.engines.docker.filter.calls import CallRules, Refused
from job_consumer.engines.docker.filter.creation import Allowed, judge_creation
from job_consumer.engines.docker.seccomp import models_profile
from tests.engine_attacks import CALLS, CREATIONS, attack

GOLDEN = Path(__file__).parent / "golden" / "container_config"
ROOT = "/var/lib/docker/volumes/work/_data"
ALLOWED = Allowed(PurePosixPath(ROOT), "replicas", publish_address="192.0.2.7", runtimes=("runsc",))
RULES = CallRules(work_volume="work", network="replicas")
RUN = f"5e12ab34-{'ab' * 32}-3"


def golden(path: Path = GOLDEN / "strict.json") -> dict[str, Any]:
    """A container as consumers create it."""
    body: dict[str, Any] = json.loads(path.read_text())
    body["HostConfig"]["SecurityOpt"] = ["no-new-privileges", f"seccomp={models_profile()}"]
    return body


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_every_container_of_a_consumer_is_let_through_as_it_is(path: Path) -> None:
    body = golden(path)
    assert json.loads(judge_creation(json.dumps(body).encode(), ALLOWED)) == body


@pytest.mark.parametrize("name", CREATIONS)
def test_a_container_with_more_rights_is_refused(name: str) -> None:
    changed = attack(name, golden(), ROOT)
    assert changed != golden()
    with pytest.raises(Refused):
        judge_creation(json.dumps(changed).encode(), ALLOWED)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", b'"\xff"', b"[" * 100_000, b'{"Image": "\\ud800"}'])
def test_what_is_no_container_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        judge_creation(body, ALLOWED)


def test_of_a_part_that_is_given_twice_the_one_that_was_judged_is_passed_on() -> None:
    text = json.dumps(golden()).replace('"Privileged": false', '"Privileged": true, "Privileged": false')
    assert b'"Privileged":true' not in judge_creation(text.encode(), ALLOWED)


def test_a_refusal_names_the_part_and_tells_nothing_of_the_variables() -> None:
    body = golden() | {"Env": ["TOKEN=a-secret-of-the-run", 5]}
    with pytest.raises(Refused, match=r"^Env\.1: ") as refused:
        judge_creation(json.dumps(body).encode(), ALLOWED)
    assert "a-secret" not in str(refused.value)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_no_consumer_makes_is_refused(name: str) -> None:
    method, target = CALLS[name]
    with pytest.raises(Refused):
        RULES.judge(method, target.replace("{run}", RUN))


@pytest.mark.parametrize(
    ("method", "target", "passed"),
    [
        ("GET", "/version", "/version"),
        ("GET", "/v1.41/networks/bridge", "/v1.41/networks/bridge"),
        ("GET", "/v1.47/networks/replicas", "/v1.47/networks/replicas"),
        ("GET", "/v1.41/volumes/work", "/v1.41/volumes/work"),
        (
            "GET",
            "/v1.41/images/localhost:5000/lab/a%40sha256:ab/json",
            "/v1.41/images/localhost:5000/lab/a@sha256:ab/json",
        ),
        ("POST", f"/v1.41/containers/is-{RUN}/stop?t=10", f"/v1.41/containers/is-{RUN}/stop?t=10"),
        (
            "DELETE",
            "/v1.41/images/lab/a:1?force=False&noprune=False",
            "/v1.41/images/lab/a:1?force=False&noprune=False",
        ),
    ],
)
def test_a_call_of_a_consumer_is_passed_on(method: str, target: str, passed: str) -> None:
    assert RULES.judge(method, target).target == passed
