"""Quotas over HTTP, through the door: what is told and refused, uploads at once, the client and `infer`."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.access import Scope
from contract.quotas import Quota
from inference_client import InferenceClient
from inference_client.errors import PermissionDenied, QuotaExceeded
from private_api.keys import create_key
from private_api.quotas.limits import NO_LIMITS, Limits
from tests.databases import opened
from tests.integration.infer_harness import User
from tests.integration.public_door import PLAIN, open_socket, serve_door
from tests.running_api import RunningApi, run_private_api
from tests.waiting import wait_until
from tests.zips import make_zip

SCOPES = (Scope.SUBMIT, Scope.MODELS)
ECHO = {"human_readable_id": "echo", "container_tag": "echo:1"}
ZIP = make_zip()


def limits(**given: int | None) -> Limits:
    return {**NO_LIMITS, **{Quota(name): limit for name, limit in given.items()}}


@contextmanager
def served(database_url: str, folder: Path, room: Limits) -> Iterator[tuple[RunningApi, str]]:
    """A server with these limits, with the model `echo`, and the URL of its open door."""
    with run_private_api(database_url, folder / "data", quotas=room) as api, serve_door(api.url) as url:
        assert httpx.post(f"{url}/api/models/", params=ECHO, **PLAIN).status_code == 200
        yield api, url


def make_key(api: RunningApi, owner: str, *scopes: Scope, **quotas: int | None) -> str:
    own = {Quota(name): limit for name, limit in quotas.items()}
    with opened(api.database_url) as database:
        return create_key(database, owner=owner, scopes=scopes or SCOPES, lifetime=None, quotas=own)


def submit(url: str, key: str | None) -> httpx.Response:
    headers = {} if key is None else {"X-API-Key": key}
    files: Any = {"zip_file": ZIP}
    return httpx.post(f"{url}/api/tasks/?human_readable_id=echo", files=files, headers=headers, **PLAIN)


def read_answer(client: Any) -> tuple[str, dict[str, Any]]:
    """The head of the answer that arrives on a socket, and its JSON."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    text = head.decode().lower()
    length = int(text.split("content-length: ")[1].split("\r\n")[0])
    while len(body) < length:
        body += client.recv(65536)
    return text, json.loads(body)


def repeat(is_done: Callable[[], bool]) -> None:
    """At once, again and again: a second may end between any two."""
    for _ in range(1000):
        if is_done():
            return
    raise AssertionError("never, in 1000 times")


def begin_upload(stack: ExitStack, url: str, key: str, path: str, length: int = len(ZIP)) -> Any:
    """A client that announces a zip and has not sent its last byte yet."""
    client = stack.enter_context(open_socket(url))
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Type: application/zip\r\n"
    client.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode() + ZIP[:-1])
    return client


def open_uploads(url: str, key: str) -> int:
    with InferenceClient(url, key=key) as client:
        return next(each.used for each in client.quota().quotas if each.quota == Quota.UPLOADS.value)


TASK = "/api/tasks/?human_readable_id=echo"
MODEL = "/api/models/?human_readable_id=seg&container_tag=seg:1&model_available=true"


def test_as_many_uploads_as_the_quota_allows_arrive_at_once_those_of_models_too(
    database_url: str, tmp_path: Path
) -> None:
    with served(database_url, tmp_path, limits(uploads=2)) as (api, url), ExitStack() as stack:
        ada, bob = make_key(api, "ada"), make_key(api, "bob")
        first = begin_upload(stack, url, ada, TASK)
        begin_upload(stack, url, ada, MODEL)
        wait_until(lambda: open_uploads(url, ada) == 2, "both uploads have their place")
        for path in (TASK, MODEL):
            head, error = read_answer(begin_upload(stack, url, ada, path))
            assert " 429 " in head
            assert "retry-after: 5" in head
            assert (error["error"], error["quota"], error["limit"], error["used"]) == (
                "QuotaExceeded",
                "uploads",
                2,
                2,
            )
            assert "2 of 2 uploads are under way" in error["detail"]
        assert submit(url, bob).status_code == submit(url, None).status_code == 200
        first.sendall(ZIP[-1:])
        assert " 200 " in read_answer(first)[0]
        wait_until(lambda: submit(url, ada).status_code == 200, "a place for another upload")


def test_an_upload_that_breaks_off_gives_its_place_back(database_url: str, tmp_path: Path) -> None:
    with served(database_url, tmp_path, limits(uploads=1)) as (api, url):
        ada = make_key(api, "ada")
        with ExitStack() as stack:
            begin_upload(stack, url, ada, TASK)
            wait_until(lambda: open_uploads(url, ada) == 1, "the place is taken")
            assert submit(url, ada).status_code == 429
        wait_until(lambda: submit(url, ada).status_code == 200, "the place is free")


def test_what_has_no_room_is_refused_before_its_body_arrives(database_url: str, tmp_path: Path) -> None:
    with served(database_url, tmp_path, limits(stored=10_000)) as (api, url), ExitStack() as stack:
        ada = make_key(api, "ada")
        head, error = read_answer(begin_upload(stack, url, ada, TASK, length=10_001))
        assert (" 429 " in head, "retry-after" in head) == (True, False)
        assert (error["quota"], error["limit"], error["used"]) == ("stored", 10_000, 0)
        assert "this input alone has 10001 bytes" in error["detail"]
        # Around the zip a form has more bytes than the zip alone.
        room = make_key(api, "ada", stored=len(ZIP))
        assert submit(url, room).status_code == 200
        assert submit(url, room).json()["quota"] == "stored"


def test_whoever_has_a_key_sees_its_owners_quotas_and_an_operator_everybodys(database_url: str, tmp_path: Path) -> None:
    with served(database_url, tmp_path, limits(queued=5, stored=10**6)) as (api, url):
        ada, carol = make_key(api, "ada", queued=2, daily=10**5), make_key(api, "carol", Scope.OPERATE)
        assert submit(url, ada).status_code == 200
        with InferenceClient(url, key=ada) as client:
            told = client.quota()
            assert told.quotas[:-1] == client.quota(owner="ada").quotas[:-1]
            assert (told.owner, [each.quota for each in told.quotas]) == ("ada", list(Quota))
            assert [(each.unit, each.limit, each.used) for each in told.quotas[:-1]] == [
                ("tasks", 2, 1),
                ("tasks", None, 0),
                ("bytes", 10**6, len(ZIP)),
                ("bytes", 10**5, len(ZIP)),
                ("uploads", None, 0),
            ]
            # Of the second that runs, so at least the one that asked.
            assert (told.quotas[-1].unit, told.quotas[-1].limit, told.quotas[-1].used > 0) == ("requests", None, True)
            with pytest.raises(PermissionDenied, match="scope operate"):
                client.quota(owner="carol")
        with InferenceClient(url, key=carol) as client:
            theirs = {each.quota: (each.limit, each.used) for each in client.quota(owner="ada").quotas}
            assert theirs["queued"] == (5, 1)
        with InferenceClient(url) as client:
            assert (client.quota().owner, client.quota().quotas) == (None, [])
            with pytest.raises(PermissionDenied):
                client.quota(owner="ada")


def test_an_owner_makes_so_many_requests_in_a_second_and_then_is_told_to_wait(
    database_url: str, tmp_path: Path
) -> None:
    with served(database_url, tmp_path, limits(requests=1)) as (api, url), httpx.Client(base_url=url, **PLAIN) as http:
        ada, bob = ({"X-API-Key": make_key(api, owner)} for owner in ("ada", "bob"))
        answers: list[httpx.Response] = []

        def is_refused() -> bool:
            answers.append(http.get("/api/models/", headers=ada))
            return answers[-1].status_code == 429

        repeat(is_refused)
        error = answers[-1].json()
        assert (error["error"], error["quota"], error["limit"], error["used"]) == ("QuotaExceeded", "requests", 1, 1)
        assert answers[-1].headers["retry-after"] == "1"
        assert {answer.status_code for answer in answers[:-1]} == {200}
        # Others are not concerned, and strangers have no owner.
        assert [http.get("/api/models/", headers=headers).status_code for headers in (bob, {})] == [200, 200]
        wait_until(lambda: not is_refused(), "the next second")


def test_a_rerun_is_refused_at_the_quota_too(database_url: str, tmp_path: Path) -> None:
    with (
        served(database_url, tmp_path, limits(queued=1)) as (api, url),
        InferenceClient(url, key=make_key(api, "ada")) as client,
    ):
        uid = client.submit("echo", {"a.txt": b"hello"})
        with pytest.raises(QuotaExceeded, match="quota queued: 1 of 1 tasks wait"):
            client.rerun(uid)


def test_infer_shows_quotas_says_what_is_used_up_and_makes_keys_with_limits(sqlite_url: str, tmp_path: Path) -> None:
    with served(sqlite_url, tmp_path, limits(queued=1, stored=2**30)) as (api, url):
        admin = make_key(api, "dan", Scope.ADMIN)
        dan = User(tmp_path / "dan", INFERENCE_SERVER_URL=url, INFERENCE_SERVER_KEY=admin)
        made = dan.pipes("keys", "create", "--owner", "ada", "--scope", "submit", "--quota", "daily=2MiB")
        assert made.returncode == 0, made.stderr
        ada = User(tmp_path / "ada", INFERENCE_SERVER_URL=url, INFERENCE_SERVER_KEY=made.stdout.strip())
        ada.submits("echo")
        size = json.loads(ada.pipes("quota", "--json").stdout)["quotas"][2]["used"]
        *lines, requests = [line.split() for line in ada.pipes("quota").stdout.splitlines()]
        assert (requests[0], requests[2]) == ("requests", "off")
        assert lines == [
            ["QUOTA", "USED", "LIMIT"],
            ["queued", "1", "1"],
            ["running", "0", "off"],
            ["stored", str(size), "B", "1.0", "GiB"],
            ["daily", str(size), "B", "2.0", "MiB"],
            ["uploads", "0", "off"],
        ]
        assert dan.pipes("quota", "--owner", "ada").stdout.splitlines()[1].split() == ["queued", "1", "1"]
        assert "daily=2.0MiB" in dan.pipes("keys").stdout
        refused = ada.pipes("submit", "echo", str(ada.home / "scan"))
        assert refused.returncode == 4
        assert "infer: quota queued: 1 of 1 tasks wait; " in refused.stderr
        (dan.home / "more").write_text("pixels")
        wide = dan.pipes("keys", "create", "--owner", "eve", "--scope", "submit", "--quota", "queued=2").stdout.strip()
        eve = User(tmp_path / "eve", INFERENCE_SERVER_URL=url, INFERENCE_SERVER_KEY=wide)
        cases = [str(dan.home / "scan"), str(dan.home / "more"), str(ada.home / "scan")]
        half = eve.pipes("submit", "echo", *cases, "--each", "--label", "study 7")
        assert half.returncode == 4
        assert "warning: 2 of 3 cases were submitted before that; label: study 7" in half.stderr
        assert "infer: quota queued: 2 of 2 tasks wait; " in half.stderr
        wrong = dan.pipes("keys", "create", "--owner", "ada", "--scope", "submit", "--quota", "daily=0")
        assert (wrong.returncode, "from 1 up" in wrong.stderr) == (2, True)
        anybody = User(tmp_path / "bob", INFERENCE_SERVER_URL=url)
        assert anybody.pipes("quota").stdout == "there are no quotas without a key\n"
