"""What the private API accepts and refuses over HTTP, on both databases. A refused upload leaves nothing behind."""

import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from contract.claims import ClaimRequest
from contract.zip_rules import MAX_ENTRIES
from tests.running_api import RunningApi, run_private_api
from tests.unit.zip_corpus import MALFORMED, Part, build
from tests.waiting import PATIENCE_S
from tests.zips import make_zip

MIB = 1024**2
MAX_UPLOAD_BYTES = 2 * MIB
ZIP = {"Content-Type": "application/zip"}


@pytest.fixture
def private_api(database_url: str, tmp_path: Path) -> Iterator[RunningApi]:
    """With the model `echo`, and small limits."""
    limits = {"max_upload_bytes": MAX_UPLOAD_BYTES, "max_unpacked_bytes": 2**30}
    with run_private_api(database_url, tmp_path / "data", **limits) as api:
        with api.client() as http:
            assert register(http).is_success
        yield api


@pytest.fixture
def http(private_api: RunningApi) -> Iterator[httpx.Client]:
    with private_api.client() as client:
        yield client


def register(http: httpx.Client, name: str = "echo", **query: str) -> httpx.Response:
    return http.post("/api/models/", params={"human_readable_id": name, "container_tag": "echo:1", **query})


def submit(http: httpx.Client, data: bytes | Iterator[bytes], name: str = "echo", **headers: str) -> httpx.Response:
    return http.post("/api/tasks/", params={"human_readable_id": name}, content=data, headers={**ZIP, **headers})


def submit_form(http: httpx.Client, *parts: tuple[str, bytes]) -> httpx.Response:
    files = [(field, ("in.zip", data, "application/zip")) for field, data in parts]
    return http.post("/api/tasks/", params={"human_readable_id": "echo"}, files=files)


def error_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]


def answer_before_body(api: RunningApi, path: str, headers: str, body: bytes = b"") -> str:
    """The status line that comes although the request is not finished."""
    parts = urlsplit(api.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n{headers}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return connection.recv(4096).decode().partition("\r\n")[0]


def assert_nothing_was_kept(api: RunningApi) -> None:
    assert api.files() == []
    with api.consumer() as consumer:
        assert consumer.claim(ClaimRequest(consumer="ada")) is None


def test_a_zip_may_come_as_the_whole_body_or_as_a_form(private_api: RunningApi, http: httpx.Client) -> None:
    answers = [submit(http, make_zip()), submit_form(http, ("zip_file", make_zip()))]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert private_api.files() == sorted(f"inputs/{answer.json()}.zip" for answer in answers)
    archives = private_api.data_dir / "archives"
    assert {(archives / name).read_bytes() for name in private_api.files()} == {make_zip()}


def test_a_form_may_name_the_type_of_its_part_before_its_field(http: httpx.Client) -> None:
    body = (
        b'--x\r\nContent-Type: application/zip\r\nContent-Disposition: form-data; name="zip_file"; filename="a"\r\n\r\n'
        + make_zip()
        + b"\r\n--x--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert http.post("/api/tasks/?human_readable_id=echo", content=body, headers=headers).status_code == 200


def test_no_zip_that_breaks_a_rule_is_kept(private_api: RunningApi, http: httpx.Client) -> None:
    for case in MALFORMED:
        # The corpus has zips of many MiB, which are too large before anything else is wrong with them.
        if len(case.data) > MAX_UPLOAD_BYTES:
            continue
        answer = submit(http, case.data) if case.data else submit_form(http, ("zip_file", case.data))
        assert error_of(answer) == (422, "InvalidArchive"), case.sentence
        assert case.says in answer.json()["detail"], case.sentence
    assert_nothing_was_kept(private_api)


def test_each_kind_of_bad_zip_is_refused_with_a_sentence(private_api: RunningApi, http: httpx.Client) -> None:
    whole = make_zip({"a.txt": b"hello" * 99})
    cases = {
        "is no zip": b"hello, I am text",
        "its end is missing": whole[:-1],
        "half of it": whole[: len(whole) // 2],
        "encrypted": build(Part(flags=1)),
        "climbs out": build(Part(name=b"../evil")),
        "absolute": build(Part(name=b"/etc/passwd")),
        "NUL": build(Part(name=b"a\0b")),
        "backslash": build(Part(name=b"..\\evil")),
        "twice": build(Part(), Part()),
        "link": build(Part(mode=0o120777)),
        "too many": make_zip({f"{n}/" + "a/" * 60 + "b": b"" for n in range(MAX_ENTRIES // 60)}),
        "bomb": build(Part(data=b"", packed=b"x", method=8, local={"size": 2**31}, central={"size": 2**31})),
        "overlap": build(Part(), Part(name=b"b", central={"offset": 0})),
    }
    for name, data in cases.items():
        for answer in (submit(http, data), submit_form(http, ("zip_file", data))):
            assert error_of(answer) == (422, "InvalidArchive"), name
            assert len(answer.json()["detail"]) > 20, name
    assert_nothing_was_kept(private_api)


def test_the_operator_says_how_many_files_and_folders_a_zip_may_have(database_url: str, tmp_path: Path) -> None:
    with (
        run_private_api(database_url, tmp_path / "data", max_entries=3) as api,
        api.client() as http,
        api.consumer() as consumer,
    ):
        assert register(http).is_success
        for answer in (
            submit(http, make_zip({"d/a": b"", "d/b": b"", "e/c": b""})),
            register_with(http, make_zip(dict.fromkeys("abcd", b""))),
        ):
            assert error_of(answer) == (422, "InvalidArchive")
            assert "at most 3" in answer.json()["detail"]
        assert submit(http, make_zip({"d/a": b"", "d/b": b""})).is_success
        held = consumer.claim(ClaimRequest(consumer="ada"))
        assert held is not None
        assert held.max_entries == 3


def register_with(http: httpx.Client, data: bytes) -> httpx.Response:
    query = {"human_readable_id": "large", "container_tag": "echo:1"}
    return http.post("/api/models/", params=query, content=data, headers=ZIP)


def test_an_unknown_model_is_told_before_the_body_is_read(private_api: RunningApi) -> None:
    path = "/api/tasks/?human_readable_id=nobody"
    assert " 550 " in answer_before_body(private_api, path, "Content-Type: application/zip\r\nContent-Length: 1000000")
    with private_api.client() as http:
        for name in ("nobody", "Echo", "echo " + "x" * 100):
            assert error_of(submit(http, make_zip(), name)) == (550, "ModelNotFound")
    assert_nothing_was_kept(private_api)


def test_a_body_that_is_too_large_is_refused_by_its_length_and_not_read(private_api: RunningApi) -> None:
    length = f"Content-Type: application/zip\r\nContent-Length: {MAX_UPLOAD_BYTES + 1}"
    assert " 413 " in answer_before_body(private_api, "/api/tasks/?human_readable_id=echo", length)
    query = "?human_readable_id=m&container_tag=m:1&model_available=true"
    assert " 413 " in answer_before_body(private_api, f"/api/models/{query}", length)
    assert_nothing_was_kept(private_api)


@pytest.mark.parametrize("form", [b"", b'--x\r\nContent-Disposition: form-data; name="zip_file"\r\n\r\n'])
def test_a_stream_that_grows_too_large_is_refused_while_it_comes(private_api: RunningApi, form: bytes) -> None:
    kind = "multipart/form-data; boundary=x" if form else "application/zip"
    piece = form + bytes(MAX_UPLOAD_BYTES + 1)
    # Never finished: the answer comes although more is announced.
    body = f"{len(piece):x}\r\n".encode() + piece + b"\r\n1000000\r\n"
    headers = f"Content-Type: {kind}\r\nTransfer-Encoding: chunked"
    assert " 413 " in answer_before_body(private_api, "/api/tasks/?human_readable_id=echo", headers, body)
    assert_nothing_was_kept(private_api)


def test_what_follows_the_end_of_a_form_is_not_read_for_ever(private_api: RunningApi) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="zip_file"\r\n\r\n' + make_zip() + b"\r\n--x--\r\n"
    piece = form + bytes(MAX_UPLOAD_BYTES + MIB)
    body = f"{len(piece):x}\r\n".encode() + piece + b"\r\n1000000\r\n"
    headers = "Content-Type: multipart/form-data; boundary=x\r\nTransfer-Encoding: chunked"
    assert " 413 " in answer_before_body(private_api, "/api/tasks/?human_readable_id=echo", headers, body)
    assert_nothing_was_kept(private_api)


def test_a_zip_of_exactly_the_largest_size_is_accepted(http: httpx.Client) -> None:
    data = make_zip({"a": bytes(MAX_UPLOAD_BYTES - 100)}, method=zipfile.ZIP_STORED)
    data = make_zip({"a": bytes(MAX_UPLOAD_BYTES - 100 - (len(data) - MAX_UPLOAD_BYTES))}, method=zipfile.ZIP_STORED)
    assert len(data) == MAX_UPLOAD_BYTES
    assert submit(http, data).status_code == 200
    assert submit(http, iter([data])).status_code == 200
    assert submit_form(http, ("zip_file", data)).status_code == 200


def test_a_body_that_is_no_zip_file_is_refused_with_what_to_send(private_api: RunningApi, http: httpx.Client) -> None:
    def post(content: bytes, kind: str) -> httpx.Response:
        return http.post("/api/tasks/?human_readable_id=echo", content=content, headers={"Content-Type": kind})

    part = b'--x\r\nContent-Disposition: form-data; name="zip_file"\r\n\r\n'
    answers = {
        "unknown form field 'file'": submit_form(http, ("file", make_zip())),
        "unknown form field 'model'": submit_form(http, ("zip_file", make_zip()), ("model", b"x")),
        "sent twice": submit_form(http, ("zip_file", make_zip()), ("zip_file", make_zip())),
        "send the zip": http.post("/api/tasks/?human_readable_id=echo"),
        "as multipart/form-data": post(b"", "application/zip"),
        "'text/plain'": post(make_zip(), "text/plain"),
        "no boundary": post(make_zip(), "multipart/form-data"),
        "cannot be parsed": post(b"nonsense", "multipart/form-data; boundary=x"),
        "closing boundary": post(part + make_zip(), "multipart/form-data; boundary=x"),
    }
    for says, answer in answers.items():
        assert error_of(answer) == (422, "InvalidRequest"), says
        assert says in answer.json()["detail"]
    assert_nothing_was_kept(private_api)


def test_parameters_nobody_knows_are_refused_by_name(http: httpx.Client) -> None:
    answers = [
        http.post("/api/tasks/", params={"human_readable_id": "echo", "urgency": "9"}, content=make_zip()),
        register(http, "m", urgency="9"),
        http.get("/api/models/", params={"urgency": "9"}),
        http.get("/api/tasks/x", params={"urgency": "9"}),
    ]
    for answer in answers:
        assert error_of(answer) == (422, "InvalidRequest")
        assert "unknown parameter 'urgency'" in answer.json()["detail"]


def test_parameters_that_make_no_sense_are_refused_with_their_name(http: httpx.Client) -> None:
    for wrong in (
        {"human_readable_id": "Über"},
        {"human_readable_id": ""},
        {"container_tag": ""},
        {"container_tag": "a b"},
        {"time_limit_s": "0"},
        {"use_gpu": "perhaps"},
        {"memory_limit_bytes": str(10**30)},
        {"pull_policy": "sometimes"},
    ):
        answer = register(http, **{"name": "m", **wrong})
        assert error_of(answer) == (422, "InvalidRequest"), wrong
        assert next(iter(wrong)) in answer.json()["detail"] or "the database can store" in answer.json()["detail"]
    for query in ("", "?human_readable_id=", "?human_readable_id=echo&model_human_readable_id=other"):
        assert "human_readable_id" in http.post(f"/api/tasks/{query}", content=make_zip()).json()["detail"]
    assert http.get("/api/models/m").status_code == 550


def test_a_text_with_nul_is_never_an_error_of_ours(http: httpx.Client) -> None:
    # SQLite can store and look for it, PostgreSQL cannot.
    assert submit(http, make_zip(), "no\0body").status_code in (422, 550)
    assert http.get("/api/tasks/a%00b").status_code in (422, 554)
    assert http.get("/api/tasks/a%00b/status").status_code in (404, 422)
    assert http.get("/api/models/", params={"after": "a\0b"}).status_code in (200, 422)
    assert register(http, "m", description="a\0b").status_code in (200, 422)


def test_both_names_of_the_model_parameter_are_accepted(http: httpx.Client) -> None:
    for query in ("model_human_readable_id=echo", "model_human_readable_id=echo&human_readable_id=echo"):
        assert http.post(f"/api/tasks/?{query}", content=make_zip(), headers=ZIP).status_code == 200


def test_the_same_idempotency_key_and_zip_answer_the_same_task(private_api: RunningApi, http: httpx.Client) -> None:
    key = {"Idempotency-Key": "k" * 255}
    uids = {submit(http, make_zip(), **key).json() for _ in range(3)}
    assert len(uids) == 1
    assert len(private_api.files()) == 1
    other = submit(http, make_zip({"b": b"other"}), **key)
    assert error_of(other) == (409, "IdempotencyConflict")
    assert register(http, "second").is_success
    assert error_of(submit(http, make_zip(), "second", **key)) == (409, "IdempotencyConflict")
    assert error_of(submit(http, make_zip(), **{"Idempotency-Key": "k" * 256})) == (422, "InvalidRequest")
    assert len(private_api.files()) == 1


def test_a_call_without_the_service_token_is_refused(private_api: RunningApi) -> None:
    with httpx.Client(base_url=private_api.url, trust_env=False, timeout=PATIENCE_S) as http:
        for method, path in [
            ("GET", "/api/models/"),
            ("POST", "/api/tasks/?human_readable_id=echo"),
            ("GET", "/api/tasks/x"),
            ("DELETE", "/api/tasks/x"),
            ("POST", "/internal/claims"),
        ]:
            for token in ("", "Bearer", "Bearer wrong", "Basic eDp5", private_api.token):
                assert error_of(http.request(method, path, headers={"Authorization": token})) == (
                    401,
                    "Unauthenticated",
                )
        assert http.get("/healthz").status_code == http.get("/readyz").status_code == 200
        assert error_of(http.get("/nothing")) == (404, "RouteNotFound")
