"""Two processes of the public API before one private API: it does not matter which of them a request meets."""

import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.public_door import PLAIN, RunningDoor, finish, serve_door
from tests.running_api import RunningApi
from tests.zips import make_zip


@pytest.fixture
def doors(api: RunningApi) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """A client of each."""
    with (
        serve_door(api.url) as first,
        serve_door(api.url) as second,
        httpx.Client(base_url=first, **PLAIN) as one,
        httpx.Client(base_url=second, **PLAIN) as other,
    ):
        params = {"human_readable_id": "echo", "container_tag": "echo:1"}
        assert one.post("/api/models/", params=params).is_success
        yield one, other


def submit(http: httpx.Client, key: str) -> str:
    headers = {"Content-Type": "application/zip", "Idempotency-Key": key}
    answer = http.post("/api/tasks/", params={"human_readable_id": "echo"}, content=make_zip(), headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json())


def test_a_submission_that_is_repeated_at_the_other_runs_once(doors: tuple[httpx.Client, httpx.Client]) -> None:
    one, other = doors
    assert submit(one, "first") == submit(other, "first") != submit(other, "second")


def test_a_long_poll_at_one_ends_with_what_is_done_at_the_other(doors: tuple[httpx.Client, httpx.Client]) -> None:
    one, other = doors
    uid = submit(one, "polled")
    cancelling = threading.Timer(1, lambda: other.post(f"/api/tasks/{uid}/cancel"))
    cancelling.start()
    began = time.monotonic()
    ended = one.get(f"/api/tasks/{uid}/status", params={"wait": 60})
    cancelling.join()
    assert ended.json()["status"] == "cancelled"
    assert time.monotonic() - began < 60


def test_an_output_that_is_begun_at_one_is_continued_at_the_other(
    api: RunningApi, doors: tuple[httpx.Client, httpx.Client]
) -> None:
    one, other = doors
    uid = submit(one, "output")
    output = finish(RunningDoor(str(one.base_url), api.data_dir, api.url), uid)
    begun = one.get(f"/api/tasks/{uid}/output", headers={"Range": "bytes=0-99"})
    rest = {"Range": "bytes=100-", "If-Range": begun.headers["ETag"]}
    continued = other.get(f"/api/tasks/{uid}/output", headers=rest)
    assert (begun.status_code, continued.status_code) == (206, 206)
    assert begun.content + continued.content == output
