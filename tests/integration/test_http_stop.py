"""What a server does for those who connected just before it stopped."""

import socket
import threading

import pytest
from starlette.types import Receive, Scope, Send

from kit import http_protocol
from kit.http_server import serve_in_thread
from tests.waiting import wait_until

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


async def app(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


def read_answer(connection: socket.socket) -> bytes:
    answer = b""
    while not answer.endswith(b"ok"):
        received = connection.recv(4096)
        assert received, f"closed after {answer!r}"
        answer += received
    return answer


def refuses(port: int) -> bool:
    with socket.socket() as late:
        return late.connect_ex(("127.0.0.1", port)) != 0


def test_a_connection_gets_one_more_request_answered_although_the_server_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "LAST_REQUEST_S", 60)
    stopping, started, ports = threading.Event(), threading.Event(), list[int]()

    def run() -> None:
        with serve_in_thread(app, "127.0.0.1", 0) as port:
            ports.append(port)
            started.set()
            stopping.wait()

    server = threading.Thread(target=run)
    server.start()
    started.wait()
    with socket.socket() as used, socket.socket() as fresh:
        for connection in (used, fresh):
            connection.settimeout(60)
            connection.connect(("127.0.0.1", *ports))
        used.sendall(REQUEST)
        assert b"connection: close" not in read_answer(used)
        stopping.set()
        wait_until(lambda: refuses(*ports))
        for connection in (used, fresh):
            connection.sendall(REQUEST)
            assert b"connection: close" in read_answer(connection)
            assert connection.recv(1) == b""
    server.join()


def test_connections_that_send_nothing_do_not_keep_the_server() -> None:
    with socket.socket() as used, socket.socket() as silent:
        with serve_in_thread(app, "127.0.0.1", 0) as port:
            for connection in (used, silent):
                connection.settimeout(60)
                connection.connect(("127.0.0.1", port))
            used.sendall(REQUEST)
            read_answer(used)
        assert [used.recv(1), silent.recv(1)] == [b"", b""]
