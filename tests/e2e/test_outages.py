"""What users see while a part of the infrastructure is away, and that nothing is lost by it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.databases import PostgresServer
from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import echo_image, script_image
from tests.e2e.systems import System, services_system
from tests.services import BROKER_URL, require_docker, require_rabbitmq
from tests.tcp_proxy import Mode, TcpProxy
from tests.waiting import wait_until


@contextmanager
def running(
    folder: Path, postgres: PostgresServer, *, database: TcpProxy | None = None, broker: TcpProxy | None = None
) -> Iterator[tuple[System, DoorClient]]:
    """Separate services, with a proxy that can break before one of the two."""
    require_docker()
    name = postgres.create()
    url = postgres.url.set(database=name)
    if database is not None:
        url = url.set(host="127.0.0.1", port=database.port)
    text = url.render_as_string(hide_password=False)
    port = broker.port if broker else None
    with services_system(folder, text, broker_port=port) as system, door_of(system.url) as door:
        yield system, door
    postgres.drop(name)


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.BLACKHOLE])
def test_without_a_broker_submissions_answer_and_run_by_polling(
    tmp_path: Path, postgres: PostgresServer, mode: Mode
) -> None:
    require_rabbitmq()
    with TcpProxy(BROKER_URL, 5672) as broker, running(tmp_path, postgres, broker=broker) as (_, door):
        model = door.add_model(echo_image())
        assert door.result(door.submit(model, {"before": b"1"})) == {"before": b"1"}
        broker.set_mode(mode)
        uid = door.submit(model, {"without": b"1"})
        assert door.result(uid) == {"without": b"1"}
        broker.set_mode(Mode.PASS)
        assert door.result(door.submit(model, {"after": b"1"})) == {"after": b"1"}


def test_without_a_database_the_answer_is_503_and_the_running_task_survives(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    require_rabbitmq()
    target = f"//{postgres.url.host or '127.0.0.1'}:{postgres.url.port or 5432}"
    with TcpProxy(target, 5432) as database, running(tmp_path, postgres, database=database) as (_, door):
        uid = door.submit(door.add_model(script_image("sleep 3; echo x > /output/x")), {"i": b""})
        door.wait_status(uid, "running")
        database.set_mode(Mode.REFUSE)
        for path in (f"/api/tasks/{uid}", "/api/models/", "/readyz"):
            answer = door.http.get(path)
            assert (answer.status_code, answer.json()["error"]) == (503, "ServiceUnavailable")
            assert int(answer.headers["retry-after"]) >= 1
        database.set_mode(Mode.PASS)
        assert door.result(uid) == {"x": b"x\n"}
        assert door.status(uid)["attempt"] == 1


def test_a_private_api_that_is_killed_costs_no_attempt(tmp_path: Path, postgres: PostgresServer) -> None:
    require_rabbitmq()
    with running(tmp_path, postgres) as (system, door):
        uid = door.submit(door.add_model(script_image("sleep 4; echo x > /output/x")), {"i": b""})
        door.wait_status(uid, "running")
        private_api = system.processes[0]
        private_api.kill()
        answer = door.http.get(f"/api/tasks/{uid}")
        assert (answer.status_code, answer.json()["error"]) == (503, "ServiceUnavailable")
        # Longer than the run: its end finds nobody to tell.
        wait_until(lambda: "is repeated" in system.consumer.output(), system.logs)
        private_api.start()
        assert door.result(uid) == {"x": b"x\n"}
        assert door.status(uid)["attempt"] == 1
