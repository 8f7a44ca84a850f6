"""Runs the tests; without arguments all but those that are marked as long.

PostgreSQL and RabbitMQ are those of this machine, else ones that Compose starts for the time of the run.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.services import BROKER_URL, DATABASE_URL, listens

COMPOSE = [
    *("docker", "compose", "--project-name", "inference-server-tests"),
    *("--file", str(Path(__file__).parent / "compose.yaml")),
]
# Tests wait more than they compute: two of the processes mostly hold a whole stack each.
USUAL = ("-m", "not long", "--numprocesses", "4", "--no-loadscope-reorder", "--durations", "15")


def main() -> int:
    """Returns pytest's exit code."""
    environment = dict(os.environ)
    # Thousands of processes would each compile the same modules.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
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
    try:
        command = [sys.executable, "-m", "pytest", *(sys.argv[1:] or USUAL)]
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
