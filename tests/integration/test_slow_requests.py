"""A door refuses requests that arrive too slowly, and no others."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.types import Receive, Scope, Send

from contract.errors import TooSlow
from kit import http_pace
from kit.http_server import serve_in_thread
from tests.waiting import wait_until

HEAD = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n\r\n"
PATIENCE_S = 60


class App:
    """Counts what it receives, and answers once the body is whole."""

    def __init__(self) -> None:
        self.received = 0
        self.left_early = 0
        self.may_read = threading.Event()
        self.may_read.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await asyncio.to_thread(self.may_read.wait)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left_early += 1
                return
            self.received += len(message.get("body", b""))
            if not message.get("more_body", False):
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def port(app: App, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(http_pace, "HEAD_S", 1)
    monkeypatch.setattr(http_pace, "BODY_S", 1)
    monkeypatch.setattr(http_pace, "BODY_BYTES", 1000)
    with serve_in_thread(app, "127.0.0.1", 0, is_door=True) as port:
        yield port


@contextmanager
def connect(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        yield connection


def rest(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


@pytest.mark.parametrize("sent", [b"", b"POST / HT", b"POST / HTTP/1.1\r\nHost: he"], ids=["silent", "line", "header"])
def test_a_head_that_does_not_come_is_refused(port: int, sent: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(sent)
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
        "error": TooSlow.__name__,
        "detail": "the request is too slow: its head took longer than 1 s",
    }


def test_the_second_head_of_a_connection_is_refused_too(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n")
        answer = b""
        while not answer.endswith(b"ok"):
            answer += connection.recv(4096)
        connection.sendall(b"POST / HTTP/1.1\r\n")
        assert rest(connection).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_trickles_is_refused_and_the_server_lets_go_of_it(port: int, app: App) -> None:
    with connect(port) as connection:
        connection.sendall(HEAD)
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"its body brought 0 bytes in 1 s; 1000 are the least" in answer
    wait_until(lambda: app.left_early == 1, "the app to hear of it")


def test_a_body_that_waits_for_the_server_is_not_refused(port: int, app: App) -> None:
    app.may_read.clear()
    with connect(port) as connection:
        # More than the server takes unread.
        connection.sendall(HEAD + bytes(100_000))
        time.sleep(3)
        app.may_read.set()
        answer = b""
        while not answer.endswith(b"ok"):
            answer += connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert app.received == 100_000


def test_what_is_left_of_a_body_that_was_answered_early_is_no_head(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HEAD_S", 1), ("BODY_S", 1), ("BODY_BYTES", 0)):
        monkeypatch.setattr(http_pace, name, value)

    async def refuse(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"no"})

    with serve_in_thread(refuse, "127.0.0.1", 0, is_door=True) as early, connect(early) as connection:
        connection.sendall(HEAD)
        time.sleep(0.5)
        connection.sendall(bytes(50_000))
        time.sleep(2)
        connection.sendall(bytes(50_000) + b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        answer = rest(connection)
    assert (answer.count(b"HTTP/1.1 403 "), answer.count(b"HTTP/1.1 408 ")) == (2, 0)


def test_other_servers_wait(monkeypatch: pytest.MonkeyPatch, app: App) -> None:
    monkeypatch.setattr(http_pace, "HEAD_S", 0.01)
    with serve_in_thread(app, "127.0.0.1", 0) as port, connect(port) as connection:
        time.sleep(0.5)
        connection.sendall(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        assert rest(connection).endswith(b"ok")
