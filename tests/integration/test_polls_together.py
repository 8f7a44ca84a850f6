"""Polls of many clients ride in one call of the door's; each is answered as if it had come alone."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import httpx
import pytest
from fastapi import APIRouter

from contract.access import Scope
from contract.claims import ClaimRequest
from contract.polls import LONGEST_KEY
from contract.quotas import Quota
from inference_client import InferenceClient
from private_api import app as private_app
from private_api.keys import create_key, revoke_key
from private_api.quotas.limits import NO_LIMITS, Limits
from public_api.polls import Polls
from public_api.relay import Relay
from tests.databases import opened
from tests.integration.public_door import PLAIN, UNKNOWN_UID, RunningDoor, finish, serve_door
from tests.running_api import RunningApi, run_private_api
from tests.waiting import PATIENCE_S
from tests.zips import make_zip

OWN = ("x-request-id", "date")
"""What differs from answer to answer."""


class Held:
    """Holds the first call that a door makes for polls until so many wait; keeps how many ride in each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        self.batches: list[int] = []
        self._begun, asked = Event(), 0
        call, ask = Relay.call, Polls.ask
        all_wait = Event()

        async def call_later(relay: Relay, path: str, body: str) -> httpx.Response:
            self.batches.append(len(json.loads(body)["polls"]))
            self._begun.set()
            await asyncio.to_thread(all_wait.wait, PATIENCE_S)
            return await call(relay, path, body)

        async def ask_counted(polls: Polls, uid: str, key: str | None) -> str | None:
            nonlocal asked
            asked += 1
            if asked == count:
                all_wait.set()
            return await ask(polls, uid, key)

        monkeypatch.setattr(Relay, "call", call_later)
        monkeypatch.setattr(Polls, "ask", ask_counted)

    def wait(self) -> None:
        """Until the first call is held."""
        assert self._begun.wait(PATIENCE_S)


@contextmanager
def served(database_url: str, folder: Path, room: Limits = NO_LIMITS) -> Iterator[tuple[RunningApi, str]]:
    with run_private_api(database_url, folder / "data", quotas=room) as api, serve_door(api.url) as url:
        query = "human_readable_id=echo&container_tag=echo:1"
        assert httpx.post(f"{url}/api/models/?{query}", **PLAIN).status_code == 200
        yield api, url


def make_key(api: RunningApi, owner: str, *scopes: Scope) -> str:
    with opened(api.database_url) as database:
        return create_key(database, owner=owner, scopes=scopes or [Scope.SUBMIT], lifetime=None)


def submit(url: str, key: str | None = None) -> str:
    path = f"{url}/api/tasks/?human_readable_id=echo"
    uid: str = httpx.post(path, files={"zip_file": make_zip()}, headers=shown(key), **PLAIN).json()
    return uid


def shown(key: str | None) -> dict[str, str]:
    return {} if key is None else {"X-API-Key": key}


def told(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    headers = {name: value for name, value in answer.headers.items() if name not in OWN}
    return answer.status_code, answer.content, headers


def test_every_poll_is_answered_as_if_it_had_come_alone(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(database_url, tmp_path) as (api, url):
        ada, bob, carol = make_key(api, "ada"), make_key(api, "bob"), make_key(api, "carol", Scope.OPERATE)
        revoked, host = make_key(api, "ada"), make_key(api, "host", Scope.CONSUME)
        with opened(api.database_url) as database:
            revoke_key(database, revoked.split("_")[1])
        keys = (None, ada, bob, carol, revoked, host, "no key", "x" * (LONGEST_KEY + 1))
        uids = [submit(url), submit(url, ada), submit(url, bob), submit(url, ada), UNKNOWN_UID]
        with api.consumer() as consumer:
            assert consumer.claim(ClaimRequest(consumer="eve", uid=uids[3])) is not None
        asked = [(uid, key) for uid in uids for key in keys]

        def poll(uid: str, key: str | None, query: str = "") -> tuple[int, bytes, dict[str, str]]:
            return told(httpx.get(f"{url}/api/tasks/{uid}{query}", headers=shown(key), **PLAIN))

        alone = [poll(*each, "?wait=0") for each in asked]
        assert {status for status, _, _ in alone} == {551, 554, 401, 403}
        # The one key that is too long rides with nobody.
        riding = len(asked) - len(uids)
        held = Held(monkeypatch, riding)
        with ThreadPoolExecutor(len(asked)) as threads:
            first = threads.submit(poll, *asked[0])
            held.wait()
            others = [threads.submit(poll, *each) for each in asked[1:]]
            together = [first.result(), *(each.result() for each in others)]
        assert together == alone
        assert held.batches == [1, riding - 1]


def test_each_poll_of_a_batch_counts_against_its_owner_s_quota(sqlite_url: str, tmp_path: Path) -> None:
    with served(sqlite_url, tmp_path, {**NO_LIMITS, Quota.REQUESTS: 5}) as (api, url):
        ada = make_key(api, "ada")
        uid = submit(url)
        with ThreadPoolExecutor(40) as threads:
            path = f"{url}/api/tasks/{uid}"
            answers = list(threads.map(lambda _: httpx.get(path, headers=shown(ada), **PLAIN), range(40)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert {answer.status_code for answer in answers} == {551, 429}
        assert {answer.json()["quota"] for answer in refused} == {"requests"}


def test_a_door_before_a_private_api_of_the_release_before_relays_each_poll(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_app, "poll_routes", lambda _services: APIRouter())
    with served(sqlite_url, tmp_path) as (api, url), InferenceClient(url) as client:
        uid = submit(url)
        answers = [httpx.get(f"{url}/api/tasks/{uid}", **PLAIN) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [551] * 3
        assert [answer.json()["position"] for answer in answers] == [0] * 3
        assert client.status(uid).position == 0
        assert api.files()


def test_what_has_ended_is_relayed(sqlite_url: str, tmp_path: Path) -> None:
    with served(sqlite_url, tmp_path) as (api, url):
        uid = submit(url)
        path = f"{url}/api/tasks/{uid}"
        assert httpx.get(path, **PLAIN).status_code == 551
        output = finish(RunningDoor(url, api.data_dir, api.url), uid)
        assert httpx.get(path, **PLAIN).content == output
        assert httpx.get(path, headers={"Range": "bytes=0-3"}, **PLAIN).content == output[:4]
