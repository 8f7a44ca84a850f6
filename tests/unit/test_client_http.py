"""The Python client against a real socket: what it sends, what it repeats, and which errors come back."""

import hashlib
import io
import json
import socket
import zipfile
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from contract import errors as server
from inference_client import InferenceClient, ModelRegistration, errors
from inference_client.connection import LONGEST_PAUSE_S, TRIES
from inference_client.errors import (
    Conflict,
    InferenceError,
    InvalidRequest,
    QuotaExceeded,
    RouteNotFound,
    ServiceUnavailable,
    TooLarge,
    UnusableInput,
    WaitTimeout,
)
from inference_client.statuses import Status
from tests.unit.client_peer import MODEL, UID, Answer, Peer, model_view, running_peer, task_view
from tests.zips import make_zip

STATUS = f"/api/tasks/{UID}/status"
BAD_GATEWAY = Answer(502, b"<html><h1>Bad Gateway</h1></html>", {"Content-Type": "text/html"})


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as peer:
        yield peer


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def client(peer: Peer, pauses: list[float]) -> Iterator[InferenceClient]:
    with InferenceClient(peer.url, key="the-key", timeout_s=60, sleep=pauses.append) as client:
        yield client


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "1.dcm").write_bytes(b"pixels" * 1000)
    return tmp_path / "scan"


def test_a_submission_streams_a_zip_and_gives_the_uid(client: InferenceClient, peer: Peer, scan: Path) -> None:
    assert client.submit(MODEL, scan) == UID
    seen = peer.calls("POST", "/api/tasks/")[0]
    assert seen.query == {"human_readable_id": MODEL}
    assert seen.headers["content-type"] == "application/zip"
    assert seen.headers["x-api-key"] == "the-key"
    assert seen.headers["idempotency-key"]
    assert zipfile.ZipFile(io.BytesIO(seen.body)).read("1.dcm") == b"pixels" * 1000


def test_a_zip_is_sent_as_it_is_with_its_length(client: InferenceClient, peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "in.zip").write_bytes(make_zip({"x": b"x"}))
    client.submit(MODEL, tmp_path / "in.zip", idempotency_key="mine")
    seen = peer.calls("POST", "/api/tasks/")[0]
    assert seen.body == (tmp_path / "in.zip").read_bytes()
    assert seen.headers["content-length"] == str(len(seen.body))
    assert seen.headers["idempotency-key"] == "mine"


@pytest.mark.parametrize("trouble", [BAD_GATEWAY, Answer(200, b'"' + b"x" * 66, cut_after=10)])
def test_a_troubled_submission_is_repeated_as_the_same_one(
    client: InferenceClient, peer: Peer, scan: Path, trouble: Answer
) -> None:
    peer.plan("POST", "/api/tasks/", trouble)
    assert client.submit(MODEL, scan) == UID
    first, second = peer.calls("POST", "/api/tasks/")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.body == second.body


def test_two_submissions_are_two_tasks(client: InferenceClient, peer: Peer, scan: Path) -> None:
    client.submit(MODEL, scan)
    client.submit(MODEL, scan)
    first, second = peer.calls("POST", "/api/tasks/")
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


def test_a_503_is_repeated_after_the_time_the_server_asks_for(
    client: InferenceClient, peer: Peer, pauses: list[float]
) -> None:
    peer.plan("GET", STATUS, Answer.of(server.ServiceUnavailable(), **{"Retry-After": "7"}))
    assert client.status(UID).uid == UID
    assert len(pauses) == 1
    assert 7 <= pauses[0] < 9


def test_a_429_of_something_in_front_of_the_server_is_repeated(
    client: InferenceClient, peer: Peer, pauses: list[float]
) -> None:
    peer.plan("GET", STATUS, Answer(429, b"Too Many Requests", {"Content-Type": "text/plain"}))
    assert client.status(UID).uid == UID
    assert len(pauses) == 1


UPLOADS_FULL = Answer.of(
    server.QuotaExceeded("4 of 4 uploads", quota="uploads", limit=4, used=4), **{"Retry-After": "5"}
)
QUEUE_FULL = Answer.of(server.QuotaExceeded("10 of 10 tasks wait", quota="queued", limit=10, used=10))
DAY_FULL = Answer.of(server.QuotaExceeded("room in 3 hours", quota="daily"), **{"Retry-After": "10800"})


def test_a_quota_that_time_alone_frees_soon_is_waited_for(
    client: InferenceClient, peer: Peer, scan: Path, pauses: list[float]
) -> None:
    peer.plan("POST", "/api/tasks/", UPLOADS_FULL)
    assert client.submit(MODEL, scan) == UID
    assert len(pauses) == 1
    assert 5 <= pauses[0] < 7
    first, second = peer.calls("POST", "/api/tasks/")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    peer.plan("POST", "/api/tasks/", *[UPLOADS_FULL] * 20)
    with pytest.raises(QuotaExceeded) as caught:
        client.submit(MODEL, scan)
    assert caught.value.fields == {"quota": "uploads", "limit": 4, "used": 4, "retry_after_s": 5}
    assert len(peer.calls("POST", "/api/tasks/")) == 2 + TRIES


@pytest.mark.parametrize("answer", [QUEUE_FULL, DAY_FULL])
def test_a_quota_that_somebody_must_make_room_in_is_raised_at_once(
    client: InferenceClient, peer: Peer, scan: Path, pauses: list[float], answer: Answer
) -> None:
    peer.plan("POST", "/api/tasks/", *[answer] * 20)
    with pytest.raises(QuotaExceeded, match=r"10 of 10 tasks wait|room in 3 hours"):
        client.submit(MODEL, scan)
    assert (len(peer.calls("POST", "/api/tasks/")), pauses) == (1, [])


def test_no_server_can_make_the_client_sleep_for_hours(
    client: InferenceClient, peer: Peer, pauses: list[float]
) -> None:
    peer.plan("GET", STATUS, Answer.of(server.ServiceUnavailable(), **{"Retry-After": "86400"}))
    client.status(UID)
    assert pauses[0] <= LONGEST_PAUSE_S * 1.25


def test_the_budget_of_repetitions_ends(client: InferenceClient, peer: Peer, pauses: list[float]) -> None:
    peer.plan("GET", STATUS, *[Answer.of(server.ServiceUnavailable("database down"))] * 20)
    with pytest.raises(ServiceUnavailable, match="database down"):
        client.status(UID)
    assert len(peer.calls("GET", STATUS)) == TRIES
    assert pauses == sorted(pauses)


def test_a_registration_is_not_repeated(client: InferenceClient, peer: Peer) -> None:
    peer.plan("POST", "/api/models/", BAD_GATEWAY)
    with pytest.raises(ServiceUnavailable, match="answered 502 Bad Gateway; that is not InferenceServer"):
        client.add_model(ModelRegistration(human_readable_id=MODEL, container_tag="example/echo:1"))
    assert len(peer.calls("POST", "/api/models/")) == 1


@pytest.mark.parametrize(
    "error",
    [
        server.ModelNotFound(),
        server.TaskPending(status="running", position=3),
        server.TaskFailed("exit code 3", reason="exit_code", exit_code=3, log_tail="Traceback"),
        server.OutputMissing(),
        server.TaskNotFound(),
        server.TaskRecordNotFound(),
        server.InvalidRequest("human_readable_id: missing"),
        server.Unauthenticated(),
        server.PermissionDenied(),
        server.ModelExists(),
        server.InferenceError("request 42"),
    ],
)
def test_the_servers_errors_come_back_as_their_classes(
    client: InferenceClient, peer: Peer, tmp_path: Path, error: server.InferenceError
) -> None:
    peer.plan("GET", f"/api/tasks/{UID}/output", Answer.of(error))
    with pytest.raises(InferenceError) as caught:
        client.fetch(UID, tmp_path / "out.zip")
    assert type(caught.value) is getattr(errors, type(error).__name__)
    assert caught.value.to_body() == error.to_body()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (Answer(404, b"<html>nginx</html>"), RouteNotFound, "is it an InferenceServer's URL"),
        (Answer(404, b'{"detail": "Not Found"}'), RouteNotFound, "answered 404"),
        (Answer(413, b"<html>too large</html>"), TooLarge, "answered 413"),
        (Answer(405, b"[1, 2]"), InvalidRequest, "answered 405"),
        (Answer(409, b'{"error": "NewerConflict", "detail": "x clashes"}'), Conflict, "x clashes"),
        (Answer(418, b'{"error": "Teapot", "detail": "short and stout"}'), InvalidRequest, "short and stout"),
        (Answer(500, b"oops"), InferenceError, "answered 500"),
        (Answer(301, b"", {"Location": "https://elsewhere/"}), UnusableInput, "redirects to https://elsewhere/"),
        (Answer(200, b"<html>welcome to our guest network</html>"), InferenceError, "is the URL right"),
        (Answer(200, b'{"uid": 5}'), InferenceError, "is the URL right"),
    ],
)
def test_answers_of_strangers_are_explained(
    client: InferenceClient, peer: Peer, answer: Answer, kind: type[Exception], message: str
) -> None:
    peer.plan("GET", STATUS, answer)
    with pytest.raises(kind, match=message):
        client.status(UID)


def test_a_server_that_is_not_there_is_named(pauses: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with (
            InferenceClient(url, sleep=pauses.append) as client,
            pytest.raises(ServiceUnavailable, match=f"{url} cannot be reached"),
        ):
            client.status(UID)
    assert len(pauses) == TRIES - 1


def test_a_password_in_the_url_is_not_shown() -> None:
    with InferenceClient("http://user:secret@example.org/base/") as client:
        assert client.server == "http://example.org/base"


def test_a_server_below_a_path_is_asked_there(pauses: list[float]) -> None:
    paths = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return httpx.Response(204)

    with InferenceClient("http://example.org/base/", transport=httpx.MockTransport(answer)) as client:
        client.delete("a/../b")
    assert paths == [b"/base/api/tasks/a%2F..%2Fb"]


def test_a_certificate_nobody_trusts_is_not_asked_again(pauses: list[float]) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed", request=request)

    with (
        InferenceClient("https://example.org", transport=httpx.MockTransport(refuse), sleep=pauses.append) as client,
        pytest.raises(ServiceUnavailable, match="--ca"),
    ):
        client.status(UID)
    assert pauses == []


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "/path", "http://host:port"])
def test_what_is_no_servers_url_is_refused(url: str) -> None:
    with pytest.raises(UnusableInput, match="URL"):
        InferenceClient(url)


@pytest.mark.parametrize("key", ["line\nbreak", "schlüssel", " padded", ""])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(UnusableInput) as caught:
        InferenceClient("http://host", key=key)
    assert not key.strip() or key.strip() not in str(caught.value)


def test_a_ca_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for path in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(UnusableInput, match="CA file"):
            InferenceClient("https://host", verify=path)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_change_the_path_is_refused(client: InferenceClient, peer: Peer, name: str) -> None:
    with pytest.raises(UnusableInput):
        client.delete(name)
    assert peer.seen == []


def test_models_are_listed_page_by_page(client: InferenceClient, peer: Peer) -> None:
    peer.models = [model_view(human_readable_id=f"m{number:03}") for number in range(250)]
    assert [model.human_readable_id for model in client.list_models()] == [f"m{number:03}" for number in range(250)]
    assert [seen.query.get("after") for seen in peer.seen] == [None, "m099", "m199"]


def test_a_full_last_page_ends_the_list(client: InferenceClient, peer: Peer) -> None:
    peer.tasks = [task_view(uid=f"{number:064x}") for number in range(100)]
    assert len(list(client.list_tasks())) == 100


def test_the_filters_of_a_list_go_with_every_page(client: InferenceClient, peer: Peer) -> None:
    peer.tasks = [task_view(uid=f"{number:064x}") for number in range(101)]
    since = datetime(2026, 11, 21, 7, tzinfo=UTC)
    found = client.list_tasks(status=["failed"], model=MODEL, owner="*", since=since, text="a b")
    assert len(list(found)) == 101
    wanted = {"status": "failed", "model": MODEL, "owner": "*", "since": "2026-11-21T07:00:00+00:00", "q": "a b"}
    assert [seen.query for seen in peer.seen] == [
        {**wanted, "limit": "100"},
        {**wanted, "limit": "100", "after": f"{99:064x}"},
    ]


def test_a_model_is_registered_with_a_streamed_zip(client: InferenceClient, peer: Peer, scan: Path) -> None:
    registration = ModelRegistration(
        human_readable_id=MODEL, container_tag="example/echo:1", use_gpu=True, time_limit_s=60
    )
    progress: list[tuple[int, int | None]] = []
    model = client.add_model(registration, scan, on_progress=lambda done, total: progress.append((done, total)))
    assert model.human_readable_id == MODEL
    seen = peer.calls("POST", "/api/models/")[0]
    assert seen.query == {
        "human_readable_id": MODEL,
        "container_tag": "example/echo:1",
        "use_gpu": "true",
        "time_limit_s": "60",
        "model_available": "true",
    }
    assert seen.headers["content-type"] == "application/zip"
    assert zipfile.ZipFile(io.BytesIO(seen.body)).namelist() == ["1.dcm"]
    assert progress[-1] == (6000, 6000)


def test_a_models_zip_has_its_length_announced(client: InferenceClient, peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(make_zip({"weights": b"w"}))
    client.add_model(ModelRegistration(human_readable_id=MODEL, container_tag="x"), tmp_path / "model.zip")
    seen = peer.calls("POST", "/api/models/")[0]
    assert int(seen.headers["content-length"]) == len(seen.body)
    assert (tmp_path / "model.zip").read_bytes() == seen.body


def test_a_model_without_a_zip_says_so(client: InferenceClient, peer: Peer) -> None:
    client.add_model(ModelRegistration(human_readable_id=MODEL, container_tag="x", model_available=True))
    assert peer.seen[0].query["model_available"] == "false"
    assert peer.seen[0].body == b""


def test_waiting_reports_each_change_and_returns_the_end(client: InferenceClient, peer: Peer) -> None:
    queued, running = task_view(position=1), task_view(status="running", attempt=1)
    peer.views = deque([queued, queued, running, running, task_view(status="finished", attempt=1)])
    statuses: list[Status] = []
    task = client.wait(UID, on_change=lambda task: statuses.append(task.status))
    assert task.status is Status.FINISHED
    assert statuses == [Status.QUEUED, Status.RUNNING, Status.FINISHED]
    assert [seen.query.get("wait") for seen in peer.seen] == [None, "2", "2", "2", "2"]


def test_waiting_unwatched_holds_long(client: InferenceClient, peer: Peer) -> None:
    peer.views = deque([task_view(), task_view(status="failed", reason="exit_code")])
    assert client.wait(UID).status is Status.FAILED
    assert peer.seen[-1].query == {"wait": "30"}


def test_waiting_for_too_long_ends_with_the_task_going_on(client: InferenceClient, peer: Peer) -> None:
    with pytest.raises(WaitTimeout, match="it goes on"):
        client.wait(UID, timeout_s=0)


def test_a_server_that_does_not_hold_is_not_asked_without_a_pause(
    client: InferenceClient, peer: Peer, pauses: list[float]
) -> None:
    peer.views = deque([task_view(), task_view(), task_view(status="finished")])
    client.wait(UID)
    assert pauses == [1.0]


def test_waiting_outlives_a_restart_of_the_server(client: InferenceClient, peer: Peer) -> None:
    peer.views = deque([task_view(), task_view(status="finished")])
    down = Answer.of(server.ServiceUnavailable())
    peer.plan("GET", STATUS, Answer(body=json.dumps(task_view()).encode()), *[down] * (2 * TRIES))
    assert client.wait(UID).status is Status.FINISHED


def test_waiting_for_a_server_that_never_answered_fails(client: InferenceClient, peer: Peer) -> None:
    peer.plan("GET", STATUS, *[Answer.of(server.ServiceUnavailable())] * 50)
    with pytest.raises(ServiceUnavailable):
        client.wait(UID)
    assert len(peer.seen) == TRIES


def test_logs_are_streamed(client: InferenceClient, peer: Peer) -> None:
    peer.log = b"line one\nline two\n"
    assert b"".join(client.logs(UID, follow=True)) == peer.log
    assert peer.seen[0].query == {"follow": "true"}


def test_a_log_that_is_cut_is_not_taken_for_whole(client: InferenceClient, peer: Peer) -> None:
    peer.plan("GET", f"/api/tasks/{UID}/logs", Answer(body=b"line one\nline two\n", cut_after=9))
    with pytest.raises(ServiceUnavailable, match="was cut"):
        b"".join(client.logs(UID))


def test_cancel_and_delete(client: InferenceClient, peer: Peer) -> None:
    assert client.cancel(UID).status is Status.CANCELLED
    client.delete(UID)
    assert [(seen.method, seen.path) for seen in peer.seen] == [
        ("POST", f"/api/tasks/{UID}/cancel"),
        ("DELETE", f"/api/tasks/{UID}"),
    ]


def test_the_uploads_digest_is_the_archives(client: InferenceClient, peer: Peer, scan: Path) -> None:
    client.submit(MODEL, scan)
    client.submit(MODEL, [scan])
    bodies = {hashlib.sha256(seen.body).hexdigest() for seen in peer.seen}
    assert len(bodies) == 1
