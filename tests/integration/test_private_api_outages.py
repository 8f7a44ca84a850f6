"""What the private API does when a client, the database or the broker goes away in the middle of something."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import func, make_url, select, text

from contract.broker import CPU_QUEUE
from contract.broker.memory import InMemoryBroker
from contract.claims import ClaimRequest
from contract.heartbeats import Heartbeat
from contract.schemas import Release
from contract.statuses import Phase
from private_api.database import REQUEST_THREADS, Database
from private_api.tables import TaskRow
from tests.databases import PostgresServer
from tests.running_api import RunningApi, run_private_api
from tests.tcp_proxy import Mode, TcpProxy
from tests.waiting import wait_until
from tests.zips import make_zip

SUBMIT = "/api/tasks/?human_readable_id=echo"
ZIP = {"Content-Type": "application/zip"}
DEADLINE_S = 60


def register(http: httpx.Client) -> None:
    http.post("/api/models/?human_readable_id=echo&container_tag=echo:1").raise_for_status()


def count_tasks(url: str) -> int:
    database = Database(url)
    try:
        with database.read() as session:
            return session.scalar(select(func.count()).select_from(TaskRow)) or 0
    finally:
        database.close()


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
def test_a_client_that_disappears_in_mid_upload_leaves_nothing(private_api: RunningApi, chunked: bool) -> None:
    data = make_zip({"a": bytes(range(256)) * 1024}, method=0)
    parts = urlsplit(private_api.url)
    with private_api.client() as http:
        register(http)
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(data)}"
    head = f"Authorization: Bearer {private_api.token}\r\nContent-Type: application/zip\r\n{length}\r\n\r\n"
    for sent in (0, 1, len(data) // 2, len(data) - 1, *([len(data)] if chunked else [])):
        body = (f"{sent:x}\r\n".encode() + data[:sent] + b"\r\n" if sent else b"") if chunked else data[:sent]
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            connection.sendall(f"POST {SUBMIT} HTTP/1.1\r\nHost: x\r\n{head}".encode() + body)
            # The upload has begun on the server before the client goes.
            wait_until(lambda: private_api.files() != [])
        wait_until(lambda: private_api.files() == [])
    assert count_tasks(private_api.database_url) == 0


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[TcpProxy]:
    with TcpProxy(postgres_url, 5432) as proxy:
        yield proxy


def test_while_the_database_is_away_the_answer_is_503_and_everything_is_there_afterwards(
    proxy: TcpProxy, postgres_url: str, tmp_path: Path
) -> None:
    with run_private_api(proxy.url, tmp_path) as api, api.client() as http, api.consumer() as consumer:
        register(http)
        uid = http.post(SUBMIT, content=make_zip(), headers=ZIP).json()
        held = consumer.claim(ClaimRequest(consumer="ada"))
        assert held is not None
        for mode in (Mode.REFUSE, Mode.RESET):
            proxy.set_mode(mode)
            key = {"Idempotency-Key": mode.value}
            away = [
                http.get(f"/api/tasks/{uid}"),
                http.get(f"/api/tasks/{uid}?wait=5"),
                http.get(f"/api/tasks/{uid}/status"),
                http.get("/api/models/echo"),
                http.delete(f"/api/tasks/{uid}"),
                http.post(SUBMIT, content=make_zip(), headers={**ZIP, **key}),
                http.post("/internal/claims", json={"consumer": "ada"}),
                http.get("/readyz"),
            ]
            for answer in away:
                assert (answer.status_code, answer.json()["error"]) == (503, "ServiceUnavailable")
                assert int(answer.headers["retry-after"]) > 0
                assert "psycopg2" not in answer.text
            assert http.get("/healthz").status_code == 200
            proxy.set_mode(Mode.PASS)
            wait_until(lambda: http.get("/readyz").status_code == 200)
            assert http.get(f"/api/tasks/{uid}/status").json()["status"] == "leased"
            uids = {http.post(SUBMIT, content=make_zip(), headers={**ZIP, **key}).json() for _ in range(2)}
            assert len(uids) == 1
        assert consumer.show(held.uid, held.fence) == held
        assert count_tasks(postgres_url) == 3


def test_a_wait_that_the_database_interrupts_answers_503_and_not_that_the_task_is_gone(
    proxy: TcpProxy, tmp_path: Path
) -> None:
    with run_private_api(proxy.url, tmp_path) as api, api.client() as http:
        register(http)
        uid = http.post(SUBMIT, content=make_zip(), headers=ZIP).json()
        with api.client() as waiting, waiting.stream("GET", f"/api/tasks/{uid}/logs?follow=true") as followed:
            proxy.set_mode(Mode.REFUSE)
            assert http.get(f"/api/tasks/{uid}?wait=60").status_code == 503
            followed.close()


def test_a_submission_is_answered_as_ever_while_the_broker_is_away(database_url: str, tmp_path: Path) -> None:
    with InMemoryBroker() as gone:
        pass
    with run_private_api(database_url, tmp_path, broker=gone) as api, api.client() as http:
        register(http)
        uid = http.post(SUBMIT, content=make_zip(), headers=ZIP).json()
        ready = http.get("/readyz")
        assert (ready.status_code, ready.json()["database"]) == (200, "ready")
        assert ready.json()["broker"].startswith("away")
        with api.consumer() as consumer:
            held = consumer.claim(ClaimRequest(consumer="ada"))
        assert held is not None
        assert held.uid == uid
        waiting = http.post(SUBMIT, content=make_zip(), headers=ZIP).json()
    # A broker that is back hears of every task that still waits.
    with run_private_api(database_url, tmp_path) as api:
        delivery = api.broker.receive([CPU_QUEUE], DEADLINE_S)
        assert delivery is not None
        assert delivery.uid == waiting
        assert api.broker.receive([CPU_QUEUE], 0) is None


def test_a_bell_rings_as_soon_as_a_task_is_submitted(private_api: RunningApi) -> None:
    with private_api.client() as http:
        register(http)
        uid = http.post(SUBMIT, content=make_zip(), headers=ZIP).json()
    delivery = private_api.broker.receive([CPU_QUEUE], DEADLINE_S)
    assert delivery is not None
    assert delivery.uid == uid


def test_consumers_are_answered_while_polls_have_every_connection_of_theirs(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    patient = " ".join(f"-c {name}_timeout=600s" for name in ("lock", "statement", "idle_in_transaction_session"))
    url = make_url(postgres_url).set(query={"options": patient}).render_as_string(hide_password=False)
    locking, holding = Database(url), text("LOCK TABLE deployments IN ACCESS EXCLUSIVE MODE")
    waiting = text(
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
        " WHERE NOT granted AND datname = :name"
    )
    with (
        run_private_api(url, tmp_path) as api,
        api.client(limits=httpx.Limits(max_connections=None)) as http,
        api.consumer() as consumer,
        ThreadPoolExecutor(31) as clients,
    ):
        register(http)
        http.post(SUBMIT, content=make_zip(), headers=ZIP).raise_for_status()
        held = consumer.claim(ClaimRequest(consumer="ada"))
        assert held is not None
        with locking.write() as session:
            session.execute(holding)
            # Each of them waits for the lock, or for its turn.
            asked = [clients.submit(http.get, "/api/deployments/") for _ in range(30)]
            name = {"name": make_url(postgres_url).database}
            wait_until(
                lambda: (postgres.admin.scalar(waiting, name) or 0) >= REQUEST_THREADS, "every thread to be taken"
            )
            # It needs no lock, and waits for its turn all the same.
            late = clients.submit(http.get, "/api/models/echo")
            consumer.beat(held.uid, held.fence, Heartbeat(consumer="ada", phase=Phase.RUNNING))
            consumer.release(held.uid, held.fence, Release(consumer="ada", detail="as planned", blameless=True))
        assert late.result().status_code == 200
        assert {each.result().status_code for each in asked} == {200}
    locking.close()
