"""What docker-compose.yaml makes of variables that are set, empty or missing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLATFORM = {
    "init",
    "migrate",
    "traefik",
    "public-api",
    "grpc-gateway",
    "private-api",
    "postgres",
    "rabbitmq",
    "sweeper",
    "engine-filter",
}


def configured(tmp_path: Path, *arguments: str, **variables: str) -> str:
    """What `docker compose config` prints with these variables and no others."""
    if shutil.which("docker") is None:
        pytest.skip("there is no docker command")
    shutil.copy(ROOT / "docker-compose.yaml", tmp_path)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = ["docker", "compose", "config", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env={**kept, **variables}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("variables", "has_consumer"),
    [
        ({}, True),
        ({"COMPOSE_PROFILES": "cpu"}, True),
        ({"COMPOSE_PROFILES": "cpu,gpu"}, True),
        ({"COMPOSE_PROFILES": "gpu"}, False),
        ({"COMPOSE_PROFILES": ""}, False),
    ],
)
def test_the_cpu_consumer_runs_unless_profiles_are_chosen_without_it(
    tmp_path: Path, variables: dict[str, str], has_consumer: bool
) -> None:
    services = set(configured(tmp_path, "--services", **variables).split())
    assert services == PLATFORM | ({"job-consumer"} if has_consumer else set())


def test_a_profile_in_the_file_of_variables_counts_as_well(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("COMPOSE_PROFILES=gpu\n")
    assert set(configured(tmp_path, "--services").split()) == PLATFORM


def test_a_storage_folder_keeps_all_that_must_not_be_lost(tmp_path: Path) -> None:
    printed = configured(tmp_path, STORAGE_DIR="/srv/inference")
    for kept in ("data", "postgres", "login", "certificate", "secret-service", "secret-postgres", "secret-rabbitmq"):
        assert f"source: /srv/inference/{kept}\n" in printed
