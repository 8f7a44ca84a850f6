"""What the private API answers about tasks over HTTP, on both databases: polls, waits, outputs, logs."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from contract.claims import ClaimRequest
from contract.errors import StaleFence
from contract.heartbeats import Heartbeat
from contract.private_client import PrivateClient
from contract.schemas import Assignment, Commit, Failure
from contract.statuses import Phase, Reason
from tests.running_api import RunningApi
from tests.waiting import wait_until
from tests.zips import make_zip

OUTPUT = bytes(range(256)) * 4
UNKNOWN = "0" * 64


@pytest.fixture
def http(private_api: RunningApi) -> Iterator[httpx.Client]:
    with private_api.client() as client:
        client.post("/api/models/?human_readable_id=echo&container_tag=echo:1").raise_for_status()
        yield client


@pytest.fixture
def consumer(private_api: RunningApi) -> Iterator[PrivateClient]:
    with private_api.consumer() as client:
        yield client


def submit(http: httpx.Client) -> str:
    headers = {"Content-Type": "application/zip"}
    uid: str = http.post("/api/tasks/?human_readable_id=echo", content=make_zip(), headers=headers).json()
    return uid


def claim(consumer: PrivateClient, uid: str) -> Assignment:
    held = consumer.claim(ClaimRequest(consumer="ada", uid=uid))
    assert held is not None
    return held


def finish(consumer: PrivateClient, held: Assignment, data: bytes = OUTPUT) -> None:
    stored = consumer.upload_output(held.uid, held.fence, [data])
    commit = Commit(consumer="ada", sha256=stored.sha256, size_bytes=stored.size_bytes)
    consumer.commit(held.uid, held.fence, commit)


def fail(consumer: PrivateClient, held: Assignment) -> None:
    failure = Failure(consumer="ada", reason=Reason.EXIT_CODE, detail="it broke", exit_code=3)
    consumer.fail(held.uid, held.fence, failure)


def error_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]


def test_a_poll_answers_each_state_with_its_code(http: httpx.Client, consumer: PrivateClient) -> None:
    uid = submit(http)
    pending = http.get(f"/api/tasks/{uid}")
    assert error_of(pending) == (551, "TaskPending")
    assert pending.headers["retry-after"] == "1"
    assert (pending.json()["status"], pending.json()["position"]) == ("queued", 0)
    held = claim(consumer, uid)
    consumer.beat(uid, held.fence, Heartbeat(consumer="ada", phase=Phase.RUNNING))
    assert http.get(f"/api/tasks/{uid}").json()["status"] == "running"
    finish(consumer, held)
    assert http.get(f"/api/tasks/{uid}").content == OUTPUT
    broken = submit(http)
    fail(consumer, claim(consumer, broken))
    failed = http.get(f"/api/tasks/{broken}")
    assert error_of(failed) == (552, "TaskFailed")
    assert (failed.json()["reason"], failed.json()["exit_code"]) == ("exit_code", 3)
    cancelled = submit(http)
    assert http.post(f"/api/tasks/{cancelled}/cancel").json()["status"] == "cancelled"
    assert http.get(f"/api/tasks/{cancelled}").json()["status"] == "cancelled"
    for unknown in (UNKNOWN, "nonsense"):
        assert error_of(http.get(f"/api/tasks/{unknown}")) == (554, "TaskNotFound")


def test_a_missing_output_is_told_from_a_missing_task(
    private_api: RunningApi, http: httpx.Client, consumer: PrivateClient
) -> None:
    uid = submit(http)
    finish(consumer, claim(consumer, uid))
    (output,) = (private_api.data_dir / "archives" / "outputs").rglob("*.zip")
    output.unlink()
    assert error_of(http.get(f"/api/tasks/{uid}")) == (553, "OutputMissing")


def test_the_status_route_keeps_to_plain_codes(http: httpx.Client, consumer: PrivateClient) -> None:
    uid = submit(http)
    assert http.get(f"/api/tasks/{uid}/status").json()["status"] == "queued"
    fail(consumer, claim(consumer, uid))
    failed = http.get(f"/api/tasks/{uid}/status")
    assert (failed.status_code, failed.json()["reason"]) == (200, "exit_code")
    for query in ("", "?wait=1"):
        assert error_of(http.get(f"/api/tasks/{UNKNOWN}/status{query}")) == (404, "TaskRecordNotFound")
    assert error_of(http.get(f"/api/tasks/{UNKNOWN}?wait=1")) == (554, "TaskNotFound")


def test_a_deleted_task_is_gone_for_good_with_its_files(
    private_api: RunningApi, http: httpx.Client, consumer: PrivateClient
) -> None:
    uid = submit(http)
    held = claim(consumer, uid)
    finish(consumer, held)
    for _ in range(2):
        assert http.delete(f"/api/tasks/{uid}").status_code == 204
    assert error_of(http.get(f"/api/tasks/{uid}")) == (554, "TaskNotFound")
    assert error_of(http.get(f"/api/tasks/{uid}/status")) == (404, "TaskRecordNotFound")
    for method, path in [("GET", "logs"), ("GET", "output"), ("POST", "cancel")]:
        assert error_of(http.request(method, f"/api/tasks/{uid}/{path}")) == (554, "TaskNotFound")
    assert error_of(http.delete(f"/api/tasks/{UNKNOWN}")) == (554, "TaskNotFound")
    wait_until(lambda: private_api.files() == [], "its files are removed")


def test_a_long_poll_answers_when_the_task_ends(http: httpx.Client, consumer: PrivateClient) -> None:
    held = claim(consumer, submit(http))
    timer = threading.Timer(0.3, finish, (consumer, held))
    timer.start()
    assert http.get(f"/api/tasks/{held.uid}?wait=60").content == OUTPUT
    timer.join()
    assert http.get(f"/api/tasks/{held.uid}/status?wait=60").json()["status"] == "finished"


def test_a_long_poll_answers_pending_when_its_time_is_over(http: httpx.Client) -> None:
    uid = submit(http)
    assert error_of(http.get(f"/api/tasks/{uid}?wait=0.2")) == (551, "TaskPending")
    assert http.get(f"/api/tasks/{uid}/status?wait=0.2").json()["status"] == "queued"
    assert error_of(http.get(f"/api/tasks/{uid}?wait=61")) == (422, "InvalidRequest")


def test_many_long_polls_hold_neither_threads_nor_connections(
    private_api: RunningApi, http: httpx.Client, consumer: PrivateClient
) -> None:
    held = claim(consumer, submit(http))
    waiting = 60

    def wait(_: int) -> int:
        with private_api.client() as client:
            return client.get(f"/api/tasks/{held.uid}/status?wait=30").json()["attempt"]

    with ThreadPoolExecutor(waiting) as pool:
        answers = pool.map(wait, range(waiting))
        # More than the pool has connections and than the server has threads: others are still served.
        for _ in range(10):
            assert error_of(http.get(f"/api/tasks/{held.uid}")) == (551, "TaskPending")
        submit(http)
        finish(consumer, held)
        assert list(answers) == [1] * waiting


def test_an_output_is_served_whole_in_part_or_not_again(http: httpx.Client, consumer: PrivateClient) -> None:
    uid = submit(http)
    finish(consumer, claim(consumer, uid))
    etag = f'"{hashlib.sha256(OUTPUT).hexdigest()}"'
    for path in (f"/api/tasks/{uid}/output", f"/api/tasks/{uid}"):
        whole = http.get(path)
        assert (whole.status_code, whole.content, whole.headers["etag"]) == (200, OUTPUT, etag)
        assert whole.headers["content-type"] == "application/zip"
        assert whole.headers["repr-digest"].startswith("sha-256=:")
        head = http.head(path)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(OUTPUT)))
        part = http.get(path, headers={"Range": "bytes=1000-", "If-Range": etag})
        assert (part.status_code, part.content) == (206, OUTPUT[1000:])
        assert part.headers["content-range"] == f"bytes 1000-{len(OUTPUT) - 1}/{len(OUTPUT)}"
        assert http.get(path, headers={"Range": "bytes=-5"}).content == OUTPUT[-5:]
        changed = http.get(path, headers={"Range": "bytes=1000-", "If-Range": '"another"'})
        assert (changed.status_code, changed.content) == (200, OUTPUT)
        many = http.get(path, headers={"Range": "bytes=0-1,5-6"})
        assert (many.status_code, many.content) == (200, OUTPUT)
        for malformed in ("", "bytes", "bytes=5-1", "lines=0-1", "bytes=a-b"):
            whole = http.get(path, headers={"Range": malformed})
            assert (whole.status_code, whole.content) == (200, OUTPUT), malformed
        assert http.get(path, headers={"Range": f"bytes={len(OUTPUT)}-"}).status_code == 416
    same = http.get(f"/api/tasks/{uid}/output", headers={"If-None-Match": f'"x", {etag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert http.get(f"/api/tasks/{uid}/output", headers={"If-None-Match": '"x"'}).status_code == 200
    assert http.head(f"/api/tasks/{submit(http)}/output").status_code == 551


def test_a_log_is_shown_and_followed_across_attempts_until_the_task_ends(
    http: httpx.Client, consumer: PrivateClient
) -> None:
    held = claim(consumer, submit(http))
    logs = f"/api/tasks/{held.uid}/logs"
    assert http.get(logs).content == b""
    assert consumer.append_log(held.uid, held.fence, 0, b"one\n") == 4
    assert consumer.append_log(held.uid, held.fence, 0, b"one\ntwo\n") == 8
    assert http.get(logs).content == b"one\ntwo\n"
    with http.stream("GET", logs, params={"follow": "true"}) as followed:
        pieces = followed.iter_raw()
        assert next(pieces) == b"one\ntwo\n"
        consumer.append_log(held.uid, held.fence, 8, b"three\n")
        assert next(pieces) == b"three\n"
        fail(consumer, held)
        assert b"".join(pieces) == b""
    assert http.get(logs, params={"follow": "true"}).content == b"one\ntwo\nthree\n"
    with pytest.raises(StaleFence):
        consumer.append_log(held.uid, held.fence, 14, b"four\n")


def test_a_gap_in_a_log_is_refused(http: httpx.Client, private_api: RunningApi, consumer: PrivateClient) -> None:
    held = claim(consumer, submit(http))
    path = f"/internal/tasks/{held.uid}/attempts/{held.fence}/log"
    assert error_of(http.post(path, params={"offset": 9}, content=b"late")) == (409, "Conflict")
    assert error_of(http.post(path, params={"offset": -1}, content=b"late")) == (422, "InvalidRequest")
