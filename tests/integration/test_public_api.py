"""The HTTP door before a real private API, with real clients."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import requests

from contract.broker.memory import InMemoryBroker
from contract.errors import TaskNotFound
from kit.http_server import serve_in_thread
from private_api.service import PrivateApiOptions, private_api_service
from private_api.tasks.limits import SizeLimits
from public_api.settings import PublicApiSettings
from tests.integration.public_door import (
    DEADLINE_S,
    MIB,
    PLAIN,
    TOKEN,
    UNKNOWN_UID,
    RunningDoor,
    finish,
    open_socket,
    serve_door,
)
from tests.waiting import wait_until
from tests.zips import make_zip

MAX_UPLOAD_BYTES = 4 * MIB


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDoor]:
    data_dir = tmp_path_factory.mktemp("door")
    options = PrivateApiOptions(
        database_url=f"sqlite:///{data_dir / 'db'}",
        data_dir=data_dir,
        service_token=TOKEN,
        max_upload_bytes=MAX_UPLOAD_BYTES,
        sizes=SizeLimits(max_unpacked_bytes=64 * MIB, max_output_bytes=64 * MIB),
        keep_finished_for=timedelta(days=1),
        unschedulable_after=timedelta(days=1),
    )
    with ExitStack() as stack:
        app = stack.enter_context(private_api_service(stack.enter_context(InMemoryBroker()), options))
        private_url = f"http://127.0.0.1:{stack.enter_context(serve_in_thread(app, '127.0.0.1', 0))}"
        yield RunningDoor(stack.enter_context(serve_door(private_url)), data_dir, private_url)


@pytest.fixture
def http(door: RunningDoor) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=door.url, timeout=DEADLINE_S, trust_env=False) as client:
        yield client


@pytest.fixture
def model(http: httpx.Client, request: pytest.FixtureRequest) -> str:
    # Another at each try: the door is one for all tests of this file.
    name = f"{re.sub('[^a-z0-9]+', '-', request.node.name.lower())[:100].strip('-')}-{uuid4().hex[:8]}"
    answer = http.post("/api/models/", params={"human_readable_id": name, "container_tag": "busybox:1.37"})
    assert answer.status_code == 200, answer.text
    return name


def submit(http: httpx.Client, model: str, path: str = "/api/tasks/") -> str:
    answer = http.post(path, params={"human_readable_id": model}, files={"zip_file": make_zip()})
    assert answer.status_code == 200, answer.text
    uid = answer.json()
    assert isinstance(uid, str)
    return uid


# Submitting and polling


def test_a_submitted_task_is_pending(http: httpx.Client, model: str) -> None:
    uid = submit(http, model)

    poll = http.get(f"/api/tasks/{uid}")

    assert re.fullmatch("[0-9a-f]{64}", uid)
    assert (poll.status_code, poll.json()["error"], poll.headers["retry-after"]) == (551, "TaskPending", "1")
    assert http.head(f"/api/tasks/{uid}").status_code == 551
    assert http.get(f"/api/tasks/{uid}/status").json()["status"] == "queued"


def test_a_raw_zip_of_unknown_length_is_a_submission(http: httpx.Client, model: str) -> None:
    body = make_zip()
    answer = http.post(
        "/api/tasks/",
        params={"model_human_readable_id": model},
        content=iter([body[:50], body[50:]]),
        headers={"Content-Type": "application/zip"},
    )
    assert answer.status_code == 200, answer.text


def test_paths_without_the_last_slash_are_the_same_calls_without_a_redirect(http: httpx.Client, model: str) -> None:
    uid = submit(http, model, "/api/tasks")
    listed = http.get("/api/models", params={"limit": 500})
    posted = http.post("/api/models", params={"human_readable_id": f"{model}.2", "container_tag": "busybox:1.37"})
    assert http.get(f"/api/tasks/{uid}").status_code == 551
    assert model in [each["human_readable_id"] for each in listed.json()]
    assert posted.json()["human_readable_id"] == f"{model}.2"


def test_an_unknown_model_is_550(http: httpx.Client) -> None:
    answer = http.post("/api/tasks/", params={"human_readable_id": "nobody"}, files={"zip_file": make_zip()})
    assert (answer.status_code, answer.json()["error"]) == (550, "ModelNotFound")
    assert "nobody" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/tasks/?human_readable_id=x&surprise=1"),
        ("POST", "/api/tasks/?human_readable_id=x&container_tag=y&surprise=1"),
        ("POST", "/api/models/?human_readable_id=x&container_tag=y&surprise=1"),
        ("GET", f"/api/tasks/{UNKNOWN_UID}?surprise=1"),
        ("GET", f"/api/tasks/{UNKNOWN_UID}/status?surprise=1"),
        ("GET", f"/api/tasks/{UNKNOWN_UID}/logs?surprise=1"),
        ("GET", "/api/models/?surprise=1"),
    ],
)
def test_an_unknown_parameter_is_refused_by_name(http: httpx.Client, method: str, path: str) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, answer.json()["error"]) == (422, "InvalidRequest")
    assert answer.json()["detail"] == "unknown parameter 'surprise'"


def test_an_idempotency_key_reaches_the_private_api(http: httpx.Client, model: str) -> None:
    key: dict[bytes, bytes] = {b"Idempotency-Key": "once-é".encode()}

    def post(text: str) -> httpx.Response:
        return http.post(
            "/api/tasks/",
            params={"human_readable_id": model},
            files={"zip_file": make_zip({"file.txt": text.encode()})},
            headers=key,
        )

    first, second, other = post("a"), post("a"), post("b")
    assert first.status_code == 200, first.text
    assert first.json() == second.json()
    assert (other.status_code, other.json()["error"]) == (409, "IdempotencyConflict")


def test_a_task_is_cancelled_and_deleted(http: httpx.Client, model: str) -> None:
    uid = submit(http, model)
    assert http.post(f"/api/tasks/{uid}/cancel").json()["status"] == "cancelled"
    assert http.get(f"/api/tasks/{uid}").status_code == 552
    assert [http.delete(f"/api/tasks/{uid}").status_code for _ in range(2)] == [204, 204]
    assert http.get(f"/api/tasks/{uid}").status_code == 554


def test_what_cannot_be_a_model_is_550(http: httpx.Client, model: str) -> None:
    assert http.get("/api/models/NO").status_code == 550
    assert http.get("/api/models/nobody").status_code == 550
    assert http.get(f"/api/models/{model}").json()["human_readable_id"] == model


# Models


@pytest.mark.parametrize("path", ["/api/models/", "/api/tasks/", "/api/models", "/api/tasks"])
def test_models_are_posted_only_where_the_operator_allows_it(door: RunningDoor, http: httpx.Client, path: str) -> None:
    parameters = {"human_readable_id": f"posted{path.replace('/', '-').lower()}", "container_tag": "busybox:1.37"}
    registration = {**parameters, "model_available": "true", "use_gpu": "true", "description": "größer"}
    with serve_door(door.private_url, allow_post_model=False) as closed:
        refused = httpx.post(closed + path, params=registration, files={"zip_file": make_zip()}, **PLAIN)

    accepted = http.post(path, params=registration, files={"zip_file": make_zip()})
    again = http.post(path, params=registration, files={"zip_file": make_zip()})
    without_zip = http.post(path, params={**registration, "replace": "true"})

    assert (refused.status_code, refused.json()["error"]) == (403, "PermissionDenied")
    assert "ALLOW_PUBLIC_POST_MODEL" in refused.json()["detail"]
    assert accepted.status_code == 200, accepted.text
    assert accepted.json()["use_gpu"] is True
    assert accepted.json()["description"] == "größer"
    assert (again.status_code, again.json()["error"]) == (409, "ModelExists")
    assert without_zip.status_code == 422


@pytest.mark.parametrize(
    ("value", "allowed"), [("1", True), ("yes", True), ("anything", True), ("", False), ("0", False), ("False", False)]
)
def test_any_value_but_a_no_allows_posting_models(value: str, allowed: bool) -> None:
    variables = {"SERVICE_TOKEN": TOKEN, "ALLOW_PUBLIC_POST_MODEL": value}
    assert PublicApiSettings.load(variables).allow_public_post_model is allowed


# Outputs


def test_an_output_is_fetched_whole_in_part_and_not_again(door: RunningDoor, http: httpx.Client, model: str) -> None:
    uid = submit(http, model)
    output = finish(door, uid)
    etag = f'"{hashlib.sha256(output).hexdigest()}"'
    path = f"/api/tasks/{uid}/output"

    for each in (f"/api/tasks/{uid}", path):
        whole, head = http.get(each), http.head(each)
        assert (whole.status_code, whole.content, whole.headers["etag"]) == (200, output, etag)
        assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)
        for name in ("content-length", "content-type", "accept-ranges", "repr-digest", "content-disposition"):
            assert whole.headers[name] == head.headers[name]
        assert whole.headers["content-length"] == str(len(output))
    part = http.get(path, headers={"Range": "bytes=10-", "If-Range": etag})
    changed = http.get(path, headers={"Range": "bytes=10-", "If-Range": '"other"'})
    known = http.get(path, headers={"If-None-Match": etag})
    outside = http.get(path, headers={"Range": "bytes=100000-"})

    assert (part.status_code, part.content) == (206, output[10:])
    assert part.headers["content-range"] == f"bytes 10-{len(output) - 1}/{len(output)}"
    assert (changed.status_code, changed.content) == (200, output)
    assert (known.status_code, known.content) == (304, b"")
    assert outside.status_code == 416
    assert http.get(f"/api/tasks/{uid}/logs", params={"follow": True}).text == "a line\n"


def test_warnings_reach_the_client_with_the_output_and_the_status(
    door: RunningDoor, http: httpx.Client, model: str
) -> None:
    uid = submit(http, model)
    finish(door, uid, "'latest' is a link that leads out of /output and was left out")
    for path in (f"/api/tasks/{uid}", f"/api/tasks/{uid}/output"):
        assert (http.get(path).headers["x-task-warnings"], http.head(path).headers["x-task-warnings"]) == ("1", "1")
    told = http.get(f"/api/tasks/{uid}/status").json()
    assert told["warnings"] == ["'latest' is a link that leads out of /output and was left out"]
    assert told["warning_count"] == 1


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/zip"),
        ("application/octet-stream", "application/octet-stream"),
        ("application/octet-stream, application/zip", "application/zip"),
    ],
)
def test_an_output_has_the_content_type_that_is_asked_for(
    door: RunningDoor, http: httpx.Client, model: str, accept: str, kind: str
) -> None:
    uid = submit(http, model)
    finish(door, uid)
    for path in (f"/api/tasks/{uid}", f"/api/tasks/{uid}/output"):
        assert http.get(path, headers={"Accept": accept}).headers["content-type"] == kind


def test_no_documented_default_is_refused(http: httpx.Client, model: str) -> None:
    """What Swagger UI and generated clients do: they send every parameter that has a default."""
    values = {
        "human_readable_id": model,
        "container_tag": "busybox:1.37",
        "uid": submit(http, model),
        "version": "1",
        "path": "a.txt",
        "name": "host",
        "key_id": "0" * 16,
    }
    seen = {}
    for path, calls in http.get("/openapi.json").json()["paths"].items():
        for method, call in calls.items():
            query = {
                each["name"]: values[each["name"]]
                if each["required"]
                else json.dumps(each["schema"]["default"]).strip('"')
                for each in call.get("parameters", ())
                if each["in"] == "query" and (each["required"] or each["schema"].get("default") is not None)
            }
            body: dict[str, Any] = {}
            if call["operationId"] == "submit_task":
                body = {"files": {"zip_file": make_zip()}}
            elif "application/json" in (kinds := call.get("requestBody", {}).get("content", {})):
                body = {"json": kinds["application/json"]["example"]}
            # Not read to its end: that of /api/events has none.
            with http.stream(method, path.format(**values), params=query, **body) as answer:
                assert answer.status_code != 422, f"{method} {answer.url}: {answer.read()!r}"
            seen[call["operationId"]] = query
    assert {"description", "model_available", "time_limit_s", "pull_policy"} < set(seen["register_model"])
    assert seen["submit_task"] == {"human_readable_id": model, "priority": "0"}


def test_a_long_poll_answers_when_the_task_ends(door: RunningDoor, http: httpx.Client, model: str) -> None:
    uid = submit(http, model)
    with open_socket(door.url) as client:
        client.sendall(f"GET /api/tasks/{uid}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        finish(door, uid)
        assert client.recv(65536).split()[1] == b"200"


# Answers before the body has ended


def zeros(size: int) -> Iterator[bytes]:
    for _ in range(size // MIB):
        yield bytes(MIB)


@pytest.mark.parametrize("declared", [True, False])
def test_a_too_large_body_is_answered_413_to_real_clients(
    door: RunningDoor, http: httpx.Client, model: str, declared: bool, tmp_path: Path
) -> None:
    url = f"{door.url}/api/tasks/?human_readable_id={model}"
    size = 64 * MIB
    headers = {"Content-Type": "application/zip", **({"Content-Length": str(size)} if declared else {})}
    file = tmp_path / "zeros"
    file.touch()
    os.truncate(file, size)
    chunked = [] if declared else ["-H", "Transfer-Encoding: chunked"]
    curl = ["curl", "-sS", "-w", "\n%{http_code}", *chunked, "-F", f"zip_file=@{file}", url]

    with requests.Session() as session, file.open("rb") as opened:
        session.trust_env = False
        by_requests = session.post(url, data=opened if declared else zeros(size), headers=headers, timeout=60)
    by_httpx = http.post(url, content=zeros(size), headers=headers)
    by_curl = subprocess.run(curl, capture_output=True, text=True, timeout=60, check=True).stdout

    assert (by_requests.status_code, by_requests.json()["error"]) == (413, "TooLarge")
    assert (by_httpx.status_code, by_httpx.json()["error"]) == (413, "TooLarge")
    body, _, status = by_curl.rpartition("\n")
    assert (status, json.loads(body)["error"]) == ("413", "TooLarge")
    assert door.unfinished_uploads == []


# Who goes away


def test_a_client_that_leaves_in_the_middle_of_its_upload_leaves_nothing(
    door: RunningDoor, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = door.task_count
    with open_socket(door.url) as client:
        head = (
            f"POST /api/tasks/?human_readable_id={model} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {3 * MIB}\r\n"
        )
        client.sendall(f"{head}Content-Type: application/zip\r\n\r\n".encode() + bytes(2 * MIB))
        wait_until(lambda: len(door.unfinished_uploads) == 1, "the upload arrives while it is sent")
    wait_until(lambda: door.unfinished_uploads == [], "the upload is dropped")
    assert door.task_count == tasks
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_readiness_is_that_of_the_private_api(http: httpx.Client) -> None:
    assert http.get("/readyz").json() == {"status": "ready", "database": "ready", "broker": "ready"}


def test_an_error_of_the_private_api_keeps_its_body(http: httpx.Client) -> None:
    answer = http.get(f"/api/tasks/{UNKNOWN_UID}")
    assert (answer.status_code, answer.json()) == (554, TaskNotFound().to_body())


def test_many_long_polls_leave_room_for_other_calls(door: RunningDoor, http: httpx.Client, model: str) -> None:
    uid = submit(http, model)
    with ExitStack() as stack:
        waiting = [stack.enter_context(open_socket(door.url)) for _ in range(150)]
        for client in waiting:
            client.sendall(f"GET /api/tasks/{uid}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert http.get(f"/api/tasks/{uid}/status").status_code == 200
        finish(door, uid)
        for client in waiting:
            assert client.recv(65536).split()[1] == b"200"


def test_a_door_whose_service_token_is_refused_is_not_ready_and_says_so(door: RunningDoor) -> None:
    with serve_door(door.private_url, token="another-token-of-the-tests") as url:
        answer = httpx.get(f"{url}/readyz", **PLAIN)
        assert (answer.status_code, answer.json()["error"]) == (503, "ServiceUnavailable")
        assert "the private API refuses the SERVICE_TOKEN" in answer.json()["detail"]
        assert httpx.get(f"{url}/healthz", **PLAIN).status_code == 200
