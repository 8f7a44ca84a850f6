"""The HTTP door between clients and a private API that go away, answer early or are not there."""

import socket
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.integration.public_door import DEADLINE_S, MIB, TOKEN, UNKNOWN_UID, exchange, open_socket, serve_door
from tests.integration.relay_upstream import upstream
from tests.waiting import wait_until


@pytest.mark.parametrize("uid", ["short", "A" * 64, "0" * 63 + "%0a", "..%5c", "%2e%2e", f"{UNKNOWN_UID}%00"])
def test_what_cannot_be_a_uid_is_554_and_asks_nobody(uid: str) -> None:
    with upstream() as private, serve_door(private.url) as url:
        for path, status in ((uid, b"554"), (f"{uid}/logs", b"554"), (f"{uid}/status", b"404")):
            answer = exchange(url, f"GET /api/tasks/{path}")
            assert answer.split()[1] == status, answer
            assert b'NotFound"' in answer
        assert private.heads.empty()


@pytest.mark.parametrize("closes", [False, True])
def test_an_early_answer_reaches_a_client_that_has_not_sent_its_body(closes: bool) -> None:
    answer = b'HTTP/1.1 413 X\r\nContent-Length: 20\r\nConnection: close\r\n\r\n{"error":"TooLarge"}'
    with upstream(answer, closes=closes) as private, serve_door(private.url) as url, open_socket(url) as client:
        head = (
            f"POST /api/tasks/?human_readable_id=m HTTP/1.1\r\nHost: localhost\r\nContent-Length: {100 * MIB}\r\n\r\n"
        )
        client.sendall(head.encode() + bytes(MIB))
        # The other 99 MiB never come; the answer does.
        received = b""
        while b"TooLarge" not in received:
            piece = client.recv(65536)
            assert piece, received
            received += piece
        assert received.split()[1] == b"413"
        if not closes:
            assert private.gone.wait(DEADLINE_S)


@pytest.mark.parametrize(
    "request_line",
    [
        f"GET /api/tasks/{UNKNOWN_UID}?wait=60",
        f"GET /api/tasks/{UNKNOWN_UID}/status?wait=60",
        f"POST /api/tasks/{UNKNOWN_UID}/cancel",
        "POST /api/tasks/?human_readable_id=m",
    ],
)
def test_a_client_that_leaves_ends_the_waiting_request_behind_the_door(request_line: str) -> None:
    with upstream() as private, serve_door(private.url) as url:
        with open_socket(url) as client:
            client.sendall(f"{request_line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
            assert private.head().startswith(request_line.encode())
        assert private.gone.wait(DEADLINE_S)


def test_an_upload_that_breaks_off_is_not_ended_as_if_it_were_whole() -> None:
    with upstream() as private, serve_door(private.url) as url:
        with open_socket(url) as client:
            head = (
                "POST /api/tasks/?human_readable_id=m HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            client.sendall(head.encode() + b"4\r\npart\r\n")
            wait_until(lambda: private.received == b"4\r\npart\r\n", "the piece arrives before the body ends")
        assert private.gone.wait(DEADLINE_S)
        assert private.received == b"4\r\npart\r\n"


def test_a_client_that_leaves_in_the_middle_of_a_download_ends_it_behind_the_door() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\npart"
    with upstream(answer) as private, serve_door(private.url) as url:
        with open_socket(url) as client:
            client.sendall(f"GET /api/tasks/{UNKNOWN_UID}/output HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            received = b""
            while not received.endswith(b"part"):
                received += client.recv(65536)
        assert private.gone.wait(DEADLINE_S)


def test_an_answer_that_breaks_off_is_not_a_whole_answer_to_the_client() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\npart"
    with (
        upstream(answer, closes=True) as private,
        serve_door(private.url) as url,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        httpx.get(f"{url}/api/tasks/{UNKNOWN_UID}/output", timeout=DEADLINE_S, trust_env=False)


@pytest.mark.parametrize(
    "path", ["/readyz", "/api/models/", f"/api/tasks/{UNKNOWN_UID}", f"/api/tasks/{UNKNOWN_UID}/status"]
)
def test_without_a_private_api_the_answer_is_503(path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with (
        serve_door(f"http://127.0.0.1:{port}") as url,
        httpx.Client(base_url=url, timeout=DEADLINE_S, trust_env=False) as http,
    ):
        answer = http.get(path)
        posted = http.post("/api/tasks/?human_readable_id=m", files={"zip_file": bytes(8 * MIB)})
        assert http.get("/healthz").json() == {"status": "alive"}
    for each in (answer, posted):
        assert (each.status_code, each.json()["error"], each.headers["retry-after"]) == (503, "ServiceUnavailable", "2")
        assert "private API" in each.json()["detail"]


def is_connecting(port: int) -> bool:
    """Whether a socket of this machine has asked for a connection to this port and has no answer yet."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(remote.endswith(f":{port:04X}") and state == "02" for _, _, remote, state, *_ in rows)


def test_a_connection_that_needs_a_second_packet_is_not_an_outage() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        # A queue for one connection, which is full: the kernel drops the packet that asks for another, and the door's
        # kernel sends it again after 1 s.
        address = listener.getsockname()
        stack.enter_context(socket.create_connection(address))
        door = stack.enter_context(serve_door(f"http://127.0.0.1:{address[1]}"))
        client = stack.enter_context(open_socket(door))
        client.sendall(b"GET /api/models/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: is_connecting(address[1]), "the door asks for a connection")
        listener.settimeout(DEADLINE_S)
        stack.enter_context(listener.accept()[0])
        private = stack.enter_context(listener.accept()[0])
        private.recv(65536)
        private.sendall(answer)
        assert client.recv(65536).split()[1] == b"200"


def test_a_private_api_that_hangs_up_is_503() -> None:
    with upstream(closes=True) as private, serve_door(private.url) as url:
        answer = httpx.get(f"{url}/api/models/", timeout=DEADLINE_S, trust_env=False)
    assert (answer.status_code, answer.json()["error"]) == (503, "ServiceUnavailable")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/internal/claims"),
        ("GET", f"/internal/tasks/{UNKNOWN_UID}/attempts/1"),
        ("GET", "/api/../internal/claims"),
        ("POST", "/api/tasks/%2e%2e/%2e%2e/internal/claims"),
        ("POST", "/api/tasks/..%2f..%2finternal%2fclaims"),
        ("GET", f"/api/tasks/{UNKNOWN_UID}/"),
        ("GET", f"/api/tasks/{UNKNOWN_UID}/input"),
        ("GET", "/api/models/x/y"),
        ("GET", "/api/models/x/"),
        ("GET", "/metrics"),
        ("GET", "//api/models/"),
    ],
)
def test_what_is_not_listed_is_404_and_asks_nobody(method: str, path: str) -> None:
    with upstream() as private, serve_door(private.url) as url:
        received = exchange(url, f"{method} {path}")
        assert private.heads.empty()
    assert received.split()[1] == b"404", received
    assert b'"error":"RouteNotFound"' in received


def test_only_listed_headers_pass_in_either_direction() -> None:
    answer = (
        b"HTTP/1.1 207 X\r\nContent-Length: 2\r\nContent-Type: text/x\r\nETag: e\r\nRetry-After: 9\r\n"
        b"Set-Cookie: a=b\r\nServer: s\r\nX-Secret: s\r\nX-Request-ID: other\r\n\r\nok"
    )
    given = {
        "Authorization": "Bearer of-the-client",
        "X-API-Key": "k",
        "X-Forwarded-For": "10.0.0.1",
        "Forwarded": "for=10.0.0.1",
        "Cookie": "a=b",
        "X-Internal": "1",
        "X-Caller-Key": "forged",
        "X-Door-Policy": "key=optional models=open",
        "TE": "trailers",
        "Range": "bytes=1-",
        "If-Range": "e",
        "If-None-Match": "f",
        "Content-Type": "application/zip",
        "Idempotency-Key": "k",
        "X-Request-ID": "id-of-the-client",
    }
    with upstream(answer) as private, serve_door(private.url, require_key=True, allow_post_model=False) as url:
        received = httpx.post(
            f"{url}/api/tasks/?human_readable_id=m", content=b"body", headers=given, trust_env=False, timeout=DEADLINE_S
        )
        request_line, *lines = private.head().decode().split("\r\n")

    assert request_line == "POST /api/tasks/?human_readable_id=m HTTP/1.1"
    sent = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert sent.pop("user-agent").startswith("python-httpx")
    assert sent == {
        "host": urlsplit(private.url).netloc,
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "keep-alive",
        "authorization": f"Bearer {TOKEN}",
        "range": "bytes=1-",
        "if-range": "e",
        "if-none-match": "f",
        "content-type": "application/zip",
        "content-length": "4",
        "idempotency-key": "k",
        "x-caller-key": "k",
        "x-caller-address": "127.0.0.1",
        "x-door-policy": "key=required models=scope",
        "x-request-id": "id-of-the-client",
    }
    assert received.status_code == 207
    assert received.content == b"ok"
    received.headers.pop("date")
    assert dict(received.headers) == {
        "content-length": "2",
        "content-type": "text/x",
        "etag": "e",
        "retry-after": "9",
        "x-request-id": "id-of-the-client",
    }


def test_a_kept_connection_that_the_private_api_closed_is_not_used_again() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
    with (
        upstream(answer, closes=True) as private,
        serve_door(private.url) as url,
        httpx.Client(base_url=url, timeout=DEADLINE_S, trust_env=False) as http,
    ):
        for _ in range(5):
            assert http.get("/api/models/").status_code == 200
            # Its thread closes the connection before it takes the next.
            private.head()
            private.closed.acquire(timeout=DEADLINE_S)


@pytest.mark.parametrize("path", [f"/api/tasks/{UNKNOWN_UID}/status", f"/api/tasks/{UNKNOWN_UID}?wait=60"])
def test_a_private_api_that_froze_is_503_long_before_a_long_poll_ends(path: str) -> None:
    with upstream() as private, serve_door(private.url) as url:
        answer = httpx.get(url + path, timeout=DEADLINE_S, trust_env=False)
        assert (answer.status_code, answer.json()["error"]) == (503, "ServiceUnavailable")
        # Its end is told to the private API, should it thaw.
        assert private.gone.wait(DEADLINE_S)
