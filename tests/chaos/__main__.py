"""`make chaos TASKS=300`: a whole server of its own under random kills and freezes, and a table of what became of it.

PostgreSQL and RabbitMQ run in containers. Where `TEST_SECOND_HOST_COMMAND` names a program that makes Docker hosts, the
tasks run on one, whose Engine is killed, too.
"""

import argparse
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.chaos.stack import Stack, storm_stack
from tests.chaos.storm import Storm
from tests.chaos.tally import count, table
from tests.chaos.targets import Container, Daemon, ModelContainer, Service, Target, docker, run_container
from tests.e2e.images import script_image
from tests.e2e.systems import free_port
from tests.services import listens
from tests.waiting import START_S, wait_until

SCRIPT = "sleep 0.$(($$ % 9)); cat /input/number > /output/number"
PARTS = ("consumer", "second consumer", "private API", "public API", "broker", "database", "engine", "model container")
HOST, NUMBER = f"ch{os.getpid()}", 2 + os.getpid() % 249
"""A name that an interface may have, and the last part of an address."""


def main() -> int:
    """Returns 1 if a task was lost, doubled, wrong or stuck, or something was left."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="repeats the order of the faults")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is broken; all by default")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    # Whoever ends it this way wants no containers left either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, ExitStack() as resources:
        engine = resources.enter_context(_host()) if "engine" in arguments.parts else None
        stack, url, outside = resources.enter_context(stack_of_containers(Path(folder), engine))
        choice = random.Random(arguments.seed)  # noqa: S311 - no secret
        image = script_image(SCRIPT)
        if engine:
            _load(image, engine)
        named = dict(zip(("private API", "public API", "consumer", "second consumer"), stack.processes, strict=True))
        targets: list[Target] = [Service(process, name) for name, process in named.items()]
        targets += [*outside, ModelContainer(stack.running, engine, choice)]
        if engine:
            targets.append(Daemon(urlsplit(engine).path))
        storm = Storm(
            url=stack.system.url,
            model=stack.add_model(image),
            targets=[target for target in targets if target.name in arguments.parts],
            tasks=arguments.tasks,
            seed=arguments.seed,
            patient=True,
        )
        begun = time.monotonic()
        storm.run()
        tally, details = count(storm, url, wait_for_nothing(stack))
        print(table(storm, tally, details))
        print(f"{time.monotonic() - begun:.0f} s")
        if not tally.is_clean:
            print(stack.system.logs(), file=sys.stderr)
    return int(not tally.is_clean)


def wait_for_nothing(stack: Stack) -> list[str]:
    """What is still left a minute after the last task ended."""
    until = time.monotonic() + 60
    while (left := stack.left()) and time.monotonic() < until:
        time.sleep(1)
    return left


@contextmanager
def stack_of_containers(folder: Path, engine: str | None) -> Iterator[tuple[Stack, str, list[Target]]]:
    """A server whose database and broker run in containers; the database's URL; and both as targets."""
    database_port, broker_port = free_port(), free_port()
    containers: list[str] = []
    try:
        containers.append(
            run_container("postgres:17", {"POSTGRES_PASSWORD": "of-the-storm"}, database_port, 5432),
        )
        user = {"RABBITMQ_DEFAULT_USER": "storm", "RABBITMQ_DEFAULT_PASS": "of-the-storm"}
        containers.append(run_container("rabbitmq:4-management", user, broker_port, 5672))
        for container, port in zip(containers, (database_port, broker_port), strict=True):
            wait_until(lambda port=port: listens(f"//127.0.0.1:{port}", port), container, within_s=START_S)
        url = f"postgresql+psycopg2://postgres:of-the-storm@127.0.0.1:{database_port}/postgres"
        extra = {"RABBIT_HOSTNAME": "127.0.0.1", "RABBIT_USER": "storm", "RABBIT_PASSWORD": "of-the-storm"}
        with storm_stack(folder, url, broker_port=broker_port, engine=engine, extra=extra) as stack:
            database, broker = Container("database", containers[0]), Container("broker", containers[1])
            yield stack, url, [database, broker]
    finally:
        for container in containers:
            docker("rm", "--force", "--volumes", container, check=False)


@contextmanager
def _host() -> Iterator[str | None]:
    """The address of the Engine of a host of its own; None where no program makes one."""
    command = os.environ.get("TEST_SECOND_HOST_COMMAND")
    if command is None:
        print("no Docker host to break: TEST_SECOND_HOST_COMMAND names no program that makes one", flush=True)
        yield None
        return
    made = subprocess.run([command, "up", HOST, str(NUMBER)], capture_output=True, text=True, check=True)
    try:
        yield made.stdout.split()[-1]
    finally:
        subprocess.run([command, "down", HOST], capture_output=True, check=False)


def _load(image: str, engine: str) -> None:
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
        subprocess.run(["docker", "--host", engine, "load"], stdin=save.stdout, capture_output=True, check=True)


if __name__ == "__main__":
    sys.exit(main())
