"""What a server does for those who connected just before it stopped."""

import socket
import threading

from starlette.types import Receive, Scope, Send

from kit.http_server import serve_in_thread

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


def test_a_connection_gets_its_first_request_answered_although_the_server_stops() -> None:
    stopping = threading.Event()
    with socket.socket() as used, socket.socket() as fresh:
        for connection in (used, fresh):
            connection.settimeout(60)

        def run() -> None:
            with serve_in_thread(app, "127.0.0.1", 0) as port:
                ports.append(port)
                started.set()
                stopping.wait()

        ports, started = list[int](), threading.Event()
        server = threading.Thread(target=run)
        server.start()
        started.wait()
        used.connect(("127.0.0.1", *ports))
        used.sendall(REQUEST)
        assert b"connection: close" not in read_answer(used)
        fresh.connect(("127.0.0.1", *ports))
        stopping.set()
        # One that had a request is closed: the server stops.
        assert used.recv(1) == b""
        fresh.sendall(REQUEST)
        assert b"connection: close" in read_answer(fresh)
        assert fresh.recv(1) == b""
        server.join()


def test_a_connection_that_sends_nothing_does_not_keep_the_server() -> None:
    with socket.socket() as silent:
        silent.settimeout(60)
        with serve_in_thread(app, "127.0.0.1", 0) as port:
            silent.connect(("127.0.0.1", port))
        assert silent.recv(1) == b""
