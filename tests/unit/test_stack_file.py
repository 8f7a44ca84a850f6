"""stack.yaml says what docker-compose.yaml says, in Swarm's words."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
# A name of its own per host, a GPU from Swarm, a stack's name on the command line; Swarm knows no ${VARIABLE:+word}, no
# profiles and no builds.
COMPOSE_ONLY = {"COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME", "CONSUMER_NAME", "GPU_UUID", "PYTHON_IMAGE", "STORAGE_DIR"}
STACK_ONLY = {"CONFIG_VERSION", "CONSUMER_KEY_VERSION", "GPU_COUNT", "REPLICA_NETWORK", "WORK_VOLUME"}


def variables(name: str) -> set[str]:
    return set(re.findall(r"\$\{([A-Z_]+)", (ROOT / name).read_text()))


def images(name: str) -> set[str]:
    return set(re.findall(r"^ +image: (\S+)", (ROOT / name).read_text(), re.MULTILINE))


def test_swarm_hands_on_the_variables_that_compose_hands_on() -> None:
    assert variables("docker-compose.yaml") - COMPOSE_ONLY == variables("stack.yaml") - STACK_ONLY


def test_swarm_runs_the_images_that_compose_runs() -> None:
    assert images("docker-compose.yaml") == images("stack.yaml")


def test_no_service_can_take_all_of_a_hosts_memory() -> None:
    """Both files give each service the same; Compose has more: what runs once, and what sweeps."""
    compose, stack = (
        yaml.safe_load((ROOT / name).read_text())["services"] for name in ("docker-compose.yaml", "stack.yaml")
    )
    of_compose = {name: service["mem_limit"].lower() for name, service in compose.items()}
    of_stack = {name: service["deploy"]["resources"]["limits"]["memory"].lower() for name, service in stack.items()}
    assert of_stack.pop("job-consumer-gpu") == of_stack["job-consumer"]
    assert of_compose == of_stack | {"init": "1g", "sweeper": "1g"}


def test_docker_accepts_the_stack() -> None:
    if shutil.which("docker") is None:
        pytest.skip("there is no docker command")
    # Docker's command before version 23 cannot say it.
    known = subprocess.run(["docker", "stack", "--help"], capture_output=True, text=True, check=False).stdout
    if not re.search(r"^ +config ", known, re.MULTILINE):
        pytest.skip("this docker command does not know `stack config`")
    command = ["docker", "stack", "config", "--compose-file", "stack.yaml"]
    environment = {**os.environ, "PROXY_DOMAIN": "localhost"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
