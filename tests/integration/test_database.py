"""What connections to PostgreSQL are limited to, and what is made of its errors and of its absence."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from contract.claims import ClaimRequest
from contract.errors import ServiceUnavailable, StorageFull
from private_api.database import Database, repeated
from tests.databases import PostgresServer
from tests.running_api import run_private_api
from tests.services import docker_problem, missing
from tests.waiting import wait_until
from tests.zips import make_zip

IMAGE = "postgres:17"
ZIP = {"Content-Type": "application/zip"}


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[Database]:
    database = Database(postgres_url)
    yield database
    database.close()


def settings_of(url: str, *names: str) -> list[str]:
    database = Database(url)
    try:
        with database.read() as session:
            return [str(session.scalar(text(f"SHOW {name}"))) for name in names]
    finally:
        database.close()


def test_options_in_the_url_override_the_servers_own(postgres_url: str) -> None:
    url = make_url(postgres_url).set(query={"options": "-c lock_timeout=7s", "tcp_user_timeout": "7000"})
    text = url.render_as_string(hide_password=False)
    names = ("lock_timeout", "statement_timeout", "synchronous_commit")
    assert settings_of(text, *names) == ["7s", "5s", "on"]


def test_a_commit_is_durable_whatever_the_servers_default_is(postgres: PostgresServer, postgres_url: str) -> None:
    url = make_url(postgres_url).set(query={})
    postgres.admin.execute(text(f'ALTER DATABASE "{url.database}" SET synchronous_commit = off'))
    assert settings_of(url.render_as_string(hide_password=False), "synchronous_commit") == ["on"]


def test_what_benchmarks_measure_is_durable_whatever_tests_do(postgres: PostgresServer, postgres_url: str) -> None:
    name = make_url(postgres_url).database
    assert name is not None
    assert settings_of(postgres_url, "synchronous_commit") == ["off"]
    assert settings_of(postgres.url_of(name, durable=True), "synchronous_commit", "fsync") == ["on", "on"]


@pytest.mark.parametrize(
    "code", ["08006", "25006", "25P03", "40001", "40P01", "53200", "53300", "57014", "57P01", "58030", "58P01"]
)
def test_what_a_statement_is_not_to_blame_for_is_unavailable(postgres_database: Database, code: str) -> None:
    with pytest.raises(ServiceUnavailable), postgres_database.write() as session:
        fail_with(session, code)


def test_a_transaction_whose_error_was_caught_is_not_taken_for_kept(postgres_database: Database) -> None:
    with postgres_database.write() as session:
        session.execute(text("CREATE TABLE counted (n integer NOT NULL)"))

    def go_on() -> None:
        with postgres_database.write() as session:
            session.execute(text("INSERT INTO counted VALUES (1)"))
            with suppress(DBAPIError):
                fail_with(session, "22000")

    with pytest.raises(ServiceUnavailable):
        go_on()
    with postgres_database.read() as session:
        assert list(session.scalars(text("SELECT n FROM counted"))) == []


def test_a_full_disk_is_told_by_its_code_in_any_language(postgres_database: Database) -> None:
    with pytest.raises(StorageFull), postgres_database.write() as session:
        fail_with(session, "53100")


def fail_with(session: Session, code: str) -> None:
    # PostgreSQL raises it, so it arrives as the driver's own exception for the code.
    session.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'as planned' USING ERRCODE = '{code}'; END $$"))


def test_of_two_transactions_that_wait_for_each_other_both_succeed(postgres_database: Database) -> None:
    with postgres_database.write() as session:
        session.execute(text("CREATE TABLE counted (id integer PRIMARY KEY, n integer NOT NULL)"))
        session.execute(text("INSERT INTO counted VALUES (1, 0), (2, 0)"))
    met = threading.Barrier(2)
    tries: list[int] = []

    @repeated
    def count(first: int, second: int) -> None:
        tries.append(first)
        with postgres_database.write() as session:
            session.execute(text("UPDATE counted SET n = n + 1 WHERE id = :id"), {"id": first})
            if len(tries) <= 2:
                met.wait(60)
            session.execute(text("UPDATE counted SET n = n + 1 WHERE id = :id"), {"id": second})

    other = threading.Thread(target=count, args=(2, 1))
    other.start()
    count(1, 2)
    other.join()
    with postgres_database.read() as session:
        assert list(session.scalars(text("SELECT n FROM counted ORDER BY id"))) == [2, 2]
    assert len(tries) >= 3  # PostgreSQL ended one of them, at least once.


def test_a_conflict_that_stays_is_unavailable_after_three_tries(postgres_database: Database) -> None:
    tries: list[str] = []

    @repeated
    def conflict() -> None:
        tries.append("once more")
        with postgres_database.write() as session:
            fail_with(session, "40001")

    with pytest.raises(ServiceUnavailable, match="others that change the same"):
        conflict()
    assert len(tries) == 3


def test_a_database_that_only_reads_answers_polls_and_503_and_is_left_once_it_writes_again(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    name = make_url(postgres_url).database

    def set_read_only(is_read_only: bool) -> None:
        value = "on" if is_read_only else "off"
        postgres.admin.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}'))

    def disconnect() -> None:
        others = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
        postgres.admin.execute(others, {"name": name})

    with run_private_api(postgres_url, tmp_path) as api, api.client() as http, api.consumer() as consumer:
        http.post("/api/models/?human_readable_id=echo&container_tag=echo:1").raise_for_status()

        def submit() -> httpx.Response:
            return http.post("/api/tasks/?human_readable_id=echo", content=make_zip(), headers=ZIP)

        uid = submit().json()
        held = consumer.claim(ClaimRequest(consumer="ada"))
        assert held is not None
        beat = {"consumer": "ada", "phase": "running"}
        set_read_only(True)
        disconnect()
        wait_until(lambda: "the database only reads" in submit().text, "a refusal")
        for answer in (
            submit(),
            http.delete(f"/api/tasks/{uid}"),
            http.post("/internal/claims", json={"consumer": "ada"}),
            http.post(f"/internal/tasks/{uid}/attempts/{held.fence}/heartbeat", json=beat),
        ):
            assert (answer.status_code, answer.json()["error"]) == (503, "ServiceUnavailable")
        assert http.get(f"/api/tasks/{uid}/status").json()["status"] == "leased"
        # The connections that only read are open still: nobody ends them, and new ones write.
        set_read_only(False)
        wait_until(lambda: submit().status_code == 200, "a submission")
        assert consumer.show(uid, held.fence) == held


@pytest.fixture
def vanishing_postgres() -> Iterator[tuple[str, Callable[[], object]]]:
    """The URL of a PostgreSQL on a host of its own, and what makes that host vanish."""
    if problem := docker_problem(IMAGE):
        missing(problem)
    name = f"inference-tests-vanishing-{uuid4().hex[:8]}"
    docker(f"network create {name}")
    try:
        docker(f"run -d --name {name} --network {name} -e POSTGRES_PASSWORD=vanishing {IMAGE}")
        address = docker(f"inspect -f {{{{range.NetworkSettings.Networks}}}}{{{{.IPAddress}}}}{{{{end}}}} {name}")
        url = f"postgresql+psycopg2://postgres:vanishing@{address}/postgres"
        wait_until(lambda: is_ready(url), "PostgreSQL answers")
        yield url, lambda: docker(f"network disconnect -f {name} {name}")
    finally:
        subprocess.run(["docker", "rm", "-fv", name], check=False, capture_output=True)
        subprocess.run(["docker", "network", "rm", name], check=False, capture_output=True)


def docker(command: str) -> str:
    return subprocess.run(["docker", *command.split()], check=True, capture_output=True, text=True).stdout.strip()


def is_ready(url: str) -> bool:
    database = Database(url)
    try:
        database.check()
    except ServiceUnavailable:
        return False
    finally:
        database.close()
    return True


def test_a_database_whose_host_vanishes_hangs_nothing_for_minutes(
    vanishing_postgres: tuple[str, Callable[[], object]],
) -> None:
    url, vanish = vanishing_postgres
    # Longer limits of the server, which cannot be reached to keep them: the connection itself must notice.
    database = Database(f"{url}?options=-c%20statement_timeout%3D300s")
    waiting = threading.Event()

    def wait_for_an_answer() -> None:
        with database.read() as session:
            session.execute(text("SELECT 1"))
            waiting.set()
            session.execute(text("SELECT pg_sleep(300)"))

    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(wait_for_an_answer)
        assert waiting.wait(60)
        vanish()
        # One that sends to the vanished host, beside the one that only waits for its answer.
        with pytest.raises(ServiceUnavailable):
            database.check()
        # The kernel alone gives up after a quarter of an hour, and on an answer never.
        with pytest.raises(ServiceUnavailable):
            asked.result(120)
    database.close()


def test_connections_that_the_server_ended_are_replaced_whatever_their_descriptors(
    postgres_database: Database,
) -> None:
    # More descriptors than select() takes, as with many long polls.
    held = [os.dup(0) for _ in range(1100)]
    try:
        pids = []
        for _ in range(2):
            with postgres_database.read() as session:
                pids.append(session.scalar(text("SELECT pg_backend_pid()")))
        assert pids[0] == pids[1]
        with postgres_database.read() as session:
            session.execute(text("SELECT 1"))
            with postgres_database.read() as other:
                pid = other.scalar(text("SELECT pg_backend_pid()"))
            session.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        for _ in range(3):
            with postgres_database.read() as session:
                assert session.scalar(text("SELECT 1")) == 1
    finally:
        for each in held:
            os.close(each)
