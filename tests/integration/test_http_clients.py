"""Clients of today over plain HTTP: those that offer HTTP/2 with each request, and those that keep connections."""

import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.public_door import PLAIN, open_socket, serve_door
from tests.running_api import RunningApi
from tests.services import missing
from tests.zips import make_zip

OFFER = b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n"
JAVA = """
import java.net.URI;
import java.net.http.*;
import java.nio.file.Path;

public class Submit {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newHttpClient();
        for (var path : arguments[1].split(",")) {
            var request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .header("Content-Type", "application/zip")
                .POST(HttpRequest.BodyPublishers.ofFile(Path.of(path)))
                .build();
            var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body());
        }
    }
}
"""


@pytest.fixture
def door(api: RunningApi) -> Iterator[str]:
    with serve_door(api.url) as url:
        yield url


@pytest.fixture
def submit_to(door: str) -> str:
    """Where tasks of a model go."""
    answer = exchange(
        door, b"POST /api/models/?human_readable_id=echo&container_tag=echo%3A1 HTTP/1.1\r\nHost: localhost\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    return f"{door}/api/tasks/?human_readable_id=echo"


def exchange(url: str, head: bytes, *pieces: bytes) -> bytes:
    """Send the head of a request, then its body in pieces; everything that comes back."""
    with open_socket(url) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(head + (b"" if b"Connection: " in head else b"Connection: close\r\n") + b"\r\n")
        for piece in pieces:
            client.sendall(piece)
        received = b""
        while piece := client.recv(65536):
            received += piece
    return received


def length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(body)


@pytest.mark.parametrize("pieces", ["at once", "in pieces", "in chunks"])
@pytest.mark.parametrize("service", ["public", "private"])
def test_a_request_that_offers_another_protocol_is_served_whole(
    service: str, pieces: str, submit_to: str, api: RunningApi
) -> None:
    body = make_zip({"a": b"x" * 300_000})
    url = submit_to if service == "public" else api.url
    token = b"Authorization: Bearer %b\r\n" % api.token.encode()
    head = b"POST /api/tasks/?human_readable_id=echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/zip\r\n"
    head += OFFER + (token if service == "private" else b"")
    if pieces == "at once":
        answer = exchange(url, head + length(body) + b"\r\n" + body)
    elif pieces == "in pieces":
        answer = exchange(url, head + length(body), body[:1], body[1:70_000], body[70_000:])
    else:
        answer = exchange(
            url,
            head + b"Transfer-Encoding: chunked\r\n",
            b"%x\r\n" % len(body),
            body[:100],
            body[100:],
            b"\r\n0\r\n\r\n",
        )
    assert answer.split()[1] == b"200", answer


def test_the_next_request_on_the_same_connection_is_read_too(door: str) -> None:
    first = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + OFFER.replace(b", close", b"") + b"\r\n"
    answer = exchange(door, first + b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
    assert answer.count(b"HTTP/1.1 200 ") == 2, answer


@pytest.mark.parametrize("offer", [b"websocket", b"TLS/1.0"])
def test_any_other_offer_is_declined_too(offer: bytes, door: str) -> None:
    answer = exchange(
        door, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade, close\r\nUpgrade: %b\r\n" % offer
    )
    assert answer.startswith(b"HTTP/1.1 200 "), answer


def test_a_tunnel_is_refused(door: str) -> None:
    assert exchange(door, b"CONNECT example.org:443 HTTP/1.1\r\nHost: localhost\r\n").startswith(b"HTTP/1.1 400 ")


def test_java_submits_with_its_defaults(submit_to: str, tmp_path: Path) -> None:
    if shutil.which("java") is None:
        missing("no java")
    (tmp_path / "Submit.java").write_text(JAVA)
    for name, size in (("small.zip", 10), ("large.zip", 3_000_000)):
        (tmp_path / name).write_bytes(make_zip({"a": secrets.token_bytes(size)}))
    command = ["java", str(tmp_path / "Submit.java"), submit_to, f"{tmp_path}/small.zip,{tmp_path}/large.zip"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line[:5] for line in done.stdout.splitlines()] == ['200 "'] * 2, f"{done.stdout}\n{done.stderr}"


def test_curl_submits_with_http2_on_offer(submit_to: str, tmp_path: Path) -> None:
    (tmp_path / "input.zip").write_bytes(make_zip({"a": bytes(1_000_000)}))
    form = ["--form", f"zip_file=@{tmp_path}/input.zip"]
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--fail-with-body", "--http2", *form, submit_to],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, len(done.stdout)) == (0, 66), f"{done.stdout}\n{done.stderr}"


def test_a_connection_outlasts_the_pause_between_two_polls(door: str) -> None:
    with open_socket(door) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        # Clients poll every 5 s, and so long did servers keep a connection. One that is closed is read as its end.
        client.settimeout(6)
        with pytest.raises(TimeoutError):
            client.recv(1)


@pytest.mark.parametrize("around", ["%22", "%22%0A", "%20", "%27", "%0D%0A"])
def test_a_uid_is_understood_with_what_a_script_left_around_it(around: str, submit_to: str, door: str) -> None:
    with httpx.Client(**PLAIN) as client:
        uid = client.post(submit_to, files={"zip_file": make_zip({"a": b"1"})}).json()
        answers = [client.get(f"{door}/api/tasks/{around}{uid}{around}{part}") for part in ("", "/status", "/logs")]
    assert [answer.status_code for answer in answers] == [551, 200, 200]
