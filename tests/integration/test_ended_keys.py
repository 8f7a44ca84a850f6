"""Whatever is open with a key ends with it: followed logs, streams of events, live calls and streams."""

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import grpc
import httpx
import pytest
from sqlalchemy import update

from contract.access import Scope
from private_api.database import Database
from private_api.deployments.routing import read_table
from private_api.keys import create_key, revoke_key
from private_api.tables import ApiKeyRow
from tests.databases import opened
from tests.integration.contract_harness import KEY, KEY_ID, run_contract_gateway
from tests.integration.grpc_backend import Backend
from tests.integration.grpc_harness import RunningGateway, route, status_of
from tests.integration.public_door import PLAIN, serve_door
from tests.running_api import RunningApi
from tests.waiting import PATIENCE_S, wait_until
from tests.zips import make_zip


def revoke(database: Database, key_id: str) -> None:
    revoke_key(database, key_id)


def expire(database: Database, key_id: str) -> None:
    with database.write() as session:
        now = database.now(session)
        session.execute(update(ApiKeyRow).where(ApiKeyRow.id == key_id).values(expires_at=now))


@pytest.mark.parametrize("path", ["/api/events", "/api/tasks/{uid}/logs?follow=true"])
@pytest.mark.parametrize("end", [revoke, expire])
def test_an_answer_that_goes_on_ends_with_its_key(
    private_api: RunningApi, path: str, end: Callable[[Database, str], None]
) -> None:
    with opened(private_api.database_url) as database, serve_door(private_api.url) as url:
        hour = timedelta(hours=1)
        key, other = (create_key(database, owner="ada", scopes=[Scope.SUBMIT], lifetime=hour) for _ in range(2))
        with httpx.Client(base_url=url, headers={"X-API-Key": key}, **PLAIN) as client:
            query = {"human_readable_id": "echo", "container_tag": "echo:1"}
            client.post("/api/models/", params=query).raise_for_status()
            files = {"zip_file": make_zip()}
            uid = client.post("/api/tasks/", params={"human_readable_id": "echo"}, files=files).json()
            with (
                ThreadPoolExecutor() as pool,
                client.stream("GET", path.format(uid=uid)) as ending,
                client.stream("GET", path.format(uid=uid), headers={"X-API-Key": other}) as lasting,
            ):
                goes_on = pool.submit(lasting.read)
                end(database, key.split("_")[1])
                pool.submit(ending.read).result(PATIENCE_S)
                assert client.get(f"/api/tasks/{uid}/status").status_code == 401
                assert not goes_on.done()
                end(database, other.split("_")[1])
                goes_on.result(PATIENCE_S)


def test_gateways_are_told_which_keys_have_ended(private_api: RunningApi) -> None:
    with opened(private_api.database_url) as database:
        key_ids = [
            create_key(database, owner="ada", scopes=[Scope.SUBMIT], lifetime=None).split("_")[1] for _ in range(3)
        ]
        before = read_table(database)
        revoke(database, key_ids[0])
        expire(database, key_ids[1])
        after = read_table(database)
    assert (before.ended_keys, after.ended_keys) == ([], sorted(key_ids[:2]))
    assert before.etag != after.etag


class OpenStream:
    """A stream that lasts until it is ended."""

    def __init__(self, gateway: RunningGateway, key: str | None) -> None:
        self._requests: queue.Queue[bytes | None] = queue.Queue()
        metadata = (("x-api-key", key),) if key else ()
        stream = gateway.stream("/user.Own/Stream")
        self.call: Any = stream(iter(self._requests.get, None), metadata=metadata, timeout=PATIENCE_S)
        assert self.echo(b"a") == b"a"

    def echo(self, message: bytes) -> bytes:
        self._requests.put(message)
        answer: bytes = next(self.call)
        return answer

    def end(self) -> None:
        self._requests.put(None)


def test_live_calls_end_with_their_key_and_no_other_does(one: Backend) -> None:
    deployment = route("a", one)
    with run_contract_gateway(deployment) as gateway:
        with_key, without = OpenStream(gateway, KEY), OpenStream(gateway, None)
        gateway.give(deployment, ended_keys=["f" * 16])
        assert with_key.echo(b"b") == b"b"
        gateway.give(deployment, ended_keys=[KEY_ID])
        error = status_of(with_key.call.__next__)
        assert (error.code(), "was revoked, or has expired" in error.details()) == (
            grpc.StatusCode.UNAUTHENTICATED,
            True,
        )
        assert without.echo(b"b") == b"b"
        with_key.end()
        without.end()


def test_a_key_that_ended_is_not_remembered_as_good(one: Backend) -> None:
    deployment, asked = route("a", one), list[str]()
    with run_contract_gateway(deployment, asked=asked) as gateway:

        def call() -> None:
            gateway.unary("/user.Own/Echo")(b"x", metadata=(("x-api-key", KEY),), timeout=PATIENCE_S)

        for _ in range(3):
            call()
        assert len(asked) == 1
        gateway.give(deployment, ended_keys=[KEY_ID])
        call()
        wait_until(lambda: len(asked) == 2)
