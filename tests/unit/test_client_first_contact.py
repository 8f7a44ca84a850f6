"""A server that was never there is told apart soon from one that goes away for a while."""

import json
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from inference_client import InferenceClient
from inference_client.connection import TRIES
from inference_client.errors import ServiceUnavailable
from inference_client.statuses import Status
from tests.unit.client_peer import UID, Answer, Peer, running_peer, task_view

FIRST_CONTACT_S = 1.5


@contextmanager
def closed_port() -> Iterator[str]:
    """An address where every connection is refused: nobody else gets the port, and nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}"


@contextmanager
def black_hole() -> Iterator[str]:
    """An address where every connection is ignored: the backlog of the socket that listens is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while True:
            client = stack.enter_context(socket.socket())
            client.settimeout(0.5)
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                break
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def ask(url: str) -> tuple[str, list[float]]:
    """The error of a first call, and the pauses between its tries."""
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(seconds)

    with InferenceClient(url, sleep=sleep, first_contact_s=FIRST_CONTACT_S) as client:
        with pytest.raises(ServiceUnavailable) as caught:
            client.wait(UID)
        assert not client.was_reached
    return caught.value.detail, pauses


def test_a_server_that_refuses_is_given_up_once_the_time_for_the_first_contact_is_over() -> None:
    with closed_port() as url:
        detail, pauses = ask(url)
    assert detail == f"{url} cannot be reached: Connection refused"
    assert 0 < sum(pauses) < FIRST_CONTACT_S


def test_a_server_that_ignores_is_tried_no_longer_than_the_time_for_the_first_contact() -> None:
    with black_hole() as url:
        detail, pauses = ask(url)
    assert detail == f"{url} did not answer in time"
    assert pauses == []


def test_a_server_that_was_reached_may_be_away_for_longer_than_a_first_contact_takes() -> None:
    """It refuses every connection for many tries, and then another process listens at its address."""
    with ExitStack() as before, ExitStack() as after:
        peer = before.enter_context(running_peer())
        # Only a closed connection can be refused.
        peer.plan(
            "GET",
            f"/api/tasks/{UID}/status",
            Answer(body=json.dumps(task_view()).encode(), headers={"Connection": "close"}),
        )
        port = int(peer.url.rpartition(":")[2])
        pauses: list[float] = []
        successors: list[Peer] = []

        def come_back_late(pause_s: float) -> None:
            pauses.append(pause_s)
            if sum(pauses) > 10 * FIRST_CONTACT_S and not successors:
                again = after.enter_context(running_peer(port))
                again.views = deque([task_view(status="finished")])
                successors.append(again)

        with InferenceClient(peer.url, sleep=come_back_late, first_contact_s=FIRST_CONTACT_S) as client:
            task = client.wait(UID, on_change=lambda view: None if view.has_ended else before.close())
    assert task.status is Status.FINISHED
    # The last of the usual tries comes after a longer pause than a first contact may take.
    assert max(pauses) > FIRST_CONTACT_S


def test_a_server_that_takes_connections_but_is_slow_with_tls_is_there() -> None:
    pauses: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with InferenceClient(url, timeout_s=0.1, sleep=pauses.append, first_contact_s=FIRST_CONTACT_S) as client:
            with pytest.raises(ServiceUnavailable):
                client.status(UID)
            assert client.was_reached
    assert len(pauses) == TRIES - 1
