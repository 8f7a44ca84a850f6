"""The door while many call at once: what is busy is not taken for gone, and whoever leaves leaves nothing open."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from kit.http_server import serve_in_thread
from tests.integration.public_door import DEADLINE_S, UNKNOWN_UID, open_socket, serve_door
from tests.waiting import wait_until

CROWD = 150
"""More than the connections that the door keeps for the next calls."""
ESTABLISHED = "01"
"""In the kernel's list of connections."""


class BusyApi:
    """A private API that answers calls, and neither its own `/healthz` nor, before it is told, polls."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.port = 0
        self.probes = 0
        self.may_answer = threading.Event()
        self.app.get("/healthz")(self._never)
        self.app.get("/api/models/")(self._models)
        self.app.get("/api/tasks/{uid}")(self._poll)

    async def _never(self) -> None:
        self.probes += 1
        await asyncio.Event().wait()

    async def _models(self) -> list[str]:
        return []

    async def _poll(self) -> str:
        while not self.may_answer.is_set():
            await asyncio.sleep(0.01)
        return "the answer"


@pytest.fixture
def busy() -> Iterator[tuple[BusyApi, str]]:
    api = BusyApi()
    with serve_in_thread(api.app, "127.0.0.1", 0) as api.port, serve_door(f"http://127.0.0.1:{api.port}") as url:
        yield api, url


def poll(stack: ExitStack, url: str) -> socket.socket:
    client = stack.enter_context(open_socket(url))
    client.sendall(f"GET /api/tasks/{UNKNOWN_UID}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return client


def test_what_answers_others_has_not_gone(busy: tuple[BusyApi, str]) -> None:
    api, url = busy
    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(base_url=url, timeout=DEADLINE_S, trust_env=False))
        waiting = poll(stack, url)
        # A call after each probe: the door hears of it before it gives the probe up.
        for number in (1, 2, 3):
            wait_until(lambda number=number: api.probes >= number, f"probe {number}")
            assert http.get("/api/models/").status_code == 200
        api.may_answer.set()
        assert waiting.recv(65536).split()[1] == b"200"


def connections_to(port: int) -> int:
    """The connections to this port of the machine that are open, by the kernel's own list."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == ESTABLISHED for row in rows)


def test_clients_that_leave_at_any_moment_leave_no_connection_open(busy: tuple[BusyApi, str]) -> None:
    api, url = busy
    for _ in range(3):
        with ExitStack() as stack:
            for _ in range(CROWD):
                poll(stack, url)
    with httpx.Client(base_url=url, timeout=DEADLINE_S, trust_env=False) as http:

        def only_one_is_left() -> bool:
            # A call ends what was kept too long, and stays connected itself.
            assert http.get("/api/models/").status_code == 200
            return connections_to(api.port) <= 1

        wait_until(only_one_is_left, lambda: f"{connections_to(api.port)} connections are open")
