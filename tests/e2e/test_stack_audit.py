"""The audit trail of the Compose stack, with the commands of docs/operations/audit.md."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doc_pages import section
from tests.e2e.client import DoorClient, door_of
from tests.e2e.compose import Compose, compose_project
from tests.e2e.images import echo_image
from tests.services import require_docker
from tests.waiting import wait_until

PAGE = "docs/operations/audit.md"
REWRITE = (
    "from private_api.database import Database; from pathlib import Path\n"
    "with Database(Path('/login/database_url').read_text()).load() as connection:\n"
    "    connection.exec_driver_sql(\"UPDATE audit_events SET owner = 'eve'\")"
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Compose, DoorClient]]:
    """A stack on which one task was submitted and its output read."""
    require_docker()
    folder = tmp_path_factory.mktemp("stack")
    with compose_project(folder) as (compose, url):
        compose.run("up", "--detach", "--wait")
        with door_of(url, str(folder / "traefik/certs/server.crt")) as door:
            # Nobody is believed who says to be somewhere else.
            door.http.headers.update(dict.fromkeys(("X-Real-Ip", "X-Forwarded-For", "Forwarded"), "192.0.2.66"))
            uid = door.submit(door.add_model(echo_image()), {"a": b"audited"})
            wait_until(lambda: door.http.get(f"/api/tasks/{uid}").status_code == 200, compose.logs)
            yield compose, door
        compose.run("down", "--volumes")


def paste(compose: Compose, command: str) -> str:
    """Run a line of the page as it stands; returns what it prints."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=compose.folder,
        env=compose.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_trail_is_checked_and_copied_as_the_page_says(stack: tuple[Compose, DoorClient]) -> None:
    compose, _ = stack
    verify, verify_head = section(PAGE, "Check it").commands
    export, verify_copy = section(PAGE, "Keep a copy").commands
    wait_until(lambda: "whole up to entry 3 of" in paste(compose, verify), compose.logs)
    head = paste(compose, verify).partition("head: ")[2].split()[0]
    paste(compose, verify_head.replace("6f0c...", head))
    paste(compose, export)
    copy = (compose.folder / "audit.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in copy]
    assert [entry["action"] for entry in entries] == ["model.register", "task.submit", "task.read_output"]
    # Traefik says who it was: this host, as its bridge has it.
    bridge = paste(
        compose, f"docker network inspect --format '{{{{(index .IPAM.Config 0).Gateway}}}}' {compose.project}_front"
    )
    assert {entry["address"] for entry in entries} == {bridge.strip()}
    assert verify_copy == "inference-server audit verify audit.jsonl"
    mounted = f"--volume={compose.folder / 'audit.jsonl'}:/tmp/audit.jsonl:ro --workdir /tmp"
    paste(compose, f"docker compose run --rm --no-deps -T {mounted} private-api {verify_copy}")


def test_the_private_api_cannot_rewrite_it(stack: tuple[Compose, DoorClient]) -> None:
    compose, _ = stack
    done = subprocess.run(
        ["docker", "compose", "exec", "-T", "private-api", "python", "-c", REWRITE],
        cwd=compose.folder,
        env=compose.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "permission denied for table audit_events" in done.stderr
    files = paste(compose, "docker compose exec -T private-api find /run/secrets /login -type f").split()
    assert sorted(Path(file).name for file in files) == [
        "database_url",
        "definitions.json",
        "rabbit_password",
        "rabbitmq.conf",
        "service_token",
    ]
