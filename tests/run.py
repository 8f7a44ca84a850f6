"""Runs the tests against the PostgreSQL and RabbitMQ of this machine, else against ones that Compose starts."""

import os
import subprocess
import sys
from pathlib import Path

from tests.services import BROKER_URL, DATABASE_URL, listens

COMPOSE = [
    *("docker", "compose", "--project-name", "inference-server-tests"),
    *("--file", str(Path(__file__).parent / "compose.yaml")),
]


def main() -> int:
    """Returns pytest's exit code."""
    environment = dict(os.environ)
    wanted = []
    if not listens(DATABASE_URL, 5432):
        wanted.append("postgres")
    if not listens(BROKER_URL, 5672):
        wanted.append("rabbitmq")
    if wanted and _start(wanted):
        if "postgres" in wanted:
            address = _address("postgres", 5432)
            environment["TEST_DATABASE_URL"] = f"postgresql+psycopg2://postgres:tests@{address}/postgres"
        if "rabbitmq" in wanted:
            environment["TEST_BROKER_URL"] = f"amqp://tests:tests@{_address('rabbitmq', 5672)}/%2F"
    # Where everything must pass at once, a test that fails gets a second try, and the end of the output tells of it: a
    # machine that is busy with something else makes a deadline pass now and then.
    again = ["--reruns", "1", "-raR"] if environment.get("CI") == "true" else []
    # All tests wait more than they compute. In the order of collection, which begins with what takes longest.
    arguments = sys.argv[1:] or ["--numprocesses", "3", "--no-loadscope-reorder"]
    command = [sys.executable, "-m", "pytest", *again, *arguments]
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    finally:
        if wanted:
            subprocess.run([*COMPOSE, "down", "--volumes"], capture_output=True, check=False)


def _start(services: list[str]) -> bool:
    try:
        subprocess.run([*COMPOSE, "up", "--detach", "--wait", *services], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{', '.join(services)}: neither listening nor started by Compose: {error}", file=sys.stderr)
        return False
    return True


def _address(service: str, port: int) -> str:
    answer = subprocess.run([*COMPOSE, "port", service, str(port)], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
