"""Two consumers on one GPU: the second refuses to start and says who holds it."""

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import pytest
from sqlalchemy import select

from contract.claims import ClaimRequest
from contract.errors import Conflict
from contract.schemas import ConsumerRegistration
from private_api.database import Database
from private_api.leases import LEASE
from private_api.placement.consumers import register_consumer
from private_api.tables import ConsumerRow
from tests.e2e.systems import Process
from tests.gpu_host import gpu_or
from tests.running_api import RunningApi
from tests.services import require_docker, require_rabbitmq
from tests.waiting import wait_until

GPU = gpu_or("GPU-8a2f1c3d-5b6e-4f70-9182-a3b4c5d6e7f8")
READY = "waits for work"


def registration(name: str, gpu: str | None = GPU) -> ConsumerRegistration:
    return ConsumerRegistration(consumer=name, gpu_uuid=gpu)


def age_everybody(database_url: str, by: timedelta) -> None:
    """As if so much time had passed since consumers were last seen."""
    database = Database(database_url)
    with database.write() as session:
        for row in session.scalars(select(ConsumerRow)):
            row.seen_at -= by
    database.close()


def test_another_consumer_is_refused_a_gpu_whose_holder_was_just_seen(private_api: RunningApi) -> None:
    with private_api.consumer() as api:
        api.register(registration("one"))
        with pytest.raises(Conflict, match=rf"^GPU {GPU} is held by consumer one, seen \d+ s ago") as caught:
            api.register(registration("two"))
    assert type(caught.value) is Conflict


def test_a_consumer_of_the_same_name_takes_over_at_once(private_api: RunningApi) -> None:
    with private_api.consumer() as api:
        api.register(registration("one"))
        api.register(registration("one"))


def test_a_gpu_is_free_once_its_holder_was_silent_for_a_lease(private_api: RunningApi) -> None:
    with private_api.consumer() as api:
        api.register(registration("one"))
        age_everybody(private_api.database_url, LEASE / 2)
        with pytest.raises(Conflict):
            api.register(registration("two"))
        age_everybody(private_api.database_url, LEASE / 2 + timedelta(seconds=1))
        api.register(registration("two"))
        with pytest.raises(Conflict, match="held by consumer two"):
            api.register(registration("one"))


def test_a_holder_that_claims_keeps_its_gpu(private_api: RunningApi) -> None:
    with private_api.consumer() as api:
        api.register(registration("one"))
        age_everybody(private_api.database_url, 2 * LEASE)
        api.claim(ClaimRequest(consumer="one", gpu_uuid=GPU))
        with pytest.raises(Conflict, match="held by consumer one"):
            api.register(registration("two"))


def test_consumers_without_a_gpu_and_of_other_gpus_are_not_in_the_way(private_api: RunningApi) -> None:
    with private_api.consumer() as api:
        for name, gpu in (("one", GPU), ("two", None), ("three", None), ("four", "GPU-other")):
            api.register(registration(name, gpu))


def test_of_many_that_register_at_once_one_gets_the_gpu(database: Database) -> None:
    outcomes: list[str] = []
    together = threading.Barrier(8)

    def register(name: str) -> None:
        together.wait(60)
        try:
            register_consumer(database, registration(name), owner=None)
        except Conflict:
            outcomes.append("refused")
        else:
            outcomes.append("registered")

    threads = [threading.Thread(target=register, args=(f"consumer-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["refused"] * 7 + ["registered"]


class StartConsumer(Protocol):
    def __call__(self, name: str, work_dir: str) -> Process:
        """Start a consumer of this name over a work directory: one host is one directory."""


@pytest.fixture
def start_consumer(api: RunningApi, tmp_path: Path) -> Iterator[StartConsumer]:
    require_docker()
    broker = urlsplit(require_rabbitmq())
    shared: Mapping[str, str] = {
        "SERVICE_TOKEN": api.token,
        "PRIVATE_API_URL": api.url,
        "RABBIT_HOSTNAME": broker.hostname or "127.0.0.1",
        "RABBIT_PORT": str(broker.port or 5672),
        "RABBIT_USER": unquote(broker.username or ""),
        "RABBIT_PASSWORD": unquote(broker.password or ""),
        "RABBIT_VHOST": unquote(broker.path[1:]) or "/",
    }
    numbers = count()
    with ExitStack() as stack:

        def start(name: str, work_dir: str) -> Process:
            environment = {
                **shared,
                "CONSUMER_NAME": name,
                "GPU_UUID": GPU,
                # The bells for CPU tasks on this broker are other tests'.
                "ACCEPTS_CPU_TASKS": "false",
                "WORK_DIR": str(tmp_path / work_dir),
            }
            command = [sys.executable, "-m", "job_consumer"]
            process = Process(name, command, environment, tmp_path / f"consumer-{next(numbers)}.log")
            process.start()
            stack.callback(process.end)
            return process

        yield start


def wait_ready(consumer: Process) -> None:
    wait_until(lambda: READY in consumer.output(), consumer.output)


def refusal(consumer: Process) -> str:
    """The one line by which it says why it ended with exit code 3."""
    assert consumer.wait(60) == 3, consumer.output()
    (line,) = [line for line in consumer.output().splitlines() if "does not start" in line]
    assert "Traceback" not in consumer.output()
    assert READY not in consumer.output()
    return line


def test_on_one_host_the_second_starts_once_the_first_was_killed(
    start_consumer: StartConsumer, api: RunningApi
) -> None:
    first = start_consumer("first", "host")
    wait_ready(first)
    line = refusal(start_consumer("second", "host"))
    assert f"GPU {GPU} is held by consumer first, pid {first.pid}, since " in line
    first.kill()
    # The kernel freed the lock at once; the private API frees the GPU a lease after it last saw the first.
    assert f"GPU {GPU} is held by consumer first, seen " in refusal(start_consumer("second", "host"))
    age_everybody(api.database_url, LEASE)
    wait_ready(start_consumer("second", "host"))


def test_a_killed_consumer_comes_back_at_once(start_consumer: StartConsumer) -> None:
    first = start_consumer("first", "host")
    wait_ready(first)
    first.kill()
    wait_ready(start_consumer("first", "host"))


def test_on_another_host_the_private_api_refuses_the_second(start_consumer: StartConsumer) -> None:
    wait_ready(start_consumer("first", "host"))
    assert f"GPU {GPU} is held by consumer first, seen " in refusal(start_consumer("second", "elsewhere"))


def test_a_second_consumer_of_the_same_name_does_not_start(start_consumer: StartConsumer) -> None:
    first = start_consumer("first", "host")
    wait_ready(first)
    line = refusal(start_consumer("first", "host"))
    assert f"the name first is held by consumer first, pid {first.pid}, since " in line
