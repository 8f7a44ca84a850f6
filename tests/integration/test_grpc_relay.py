"""Calls of any service and kind pass the gateway unchanged, in both directions, to the end."""

import queue
from collections.abc import Iterator

import grpc
import pytest

from tests.integration.grpc_backend import Backend, run_backend
from tests.integration.grpc_bench import RunningGateway, route, run_bench_gateway

CODE = grpc.StatusCode


@pytest.fixture
def backend() -> Iterator[Backend]:
    with run_backend() as backend:
        yield backend


@pytest.fixture
def gateway(backend: Backend) -> Iterator[RunningGateway]:
    with run_bench_gateway() as gateway:
        gateway.give(route("m", backend))
        yield gateway


class Sender:
    """Messages of a caller that stays open until it is told to end."""

    def __init__(self, *messages: bytes) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        for message in messages:
            self._queue.put(message)

    def send(self, message: bytes) -> None:
        self._queue.put(message)

    def end(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (message := self._queue.get()) is not None:
            yield message


def test_every_kind_of_call_passes(gateway: RunningGateway, backend: Backend) -> None:
    channel = gateway.channel
    assert channel.unary_unary("/user.Own/Echo")(b"one", timeout=10) == b"one"
    many = channel.unary_stream("/user.Own/Many")(b"", metadata=(("count", "3"), ("size", "5")), timeout=10)
    assert list(many) == [bytes(5)] * 3
    assert channel.stream_unary("/user.Own/Join")(iter([b"a", b"b", b"c"]), timeout=10) == b"abc"
    assert list(channel.stream_stream("/user.Own/Echo")(iter([b"x", b"", b"y"]), timeout=10)) == [b"x", b"", b"y"]
    assert set(backend.paths()) == {"/user.Own/Echo", "/user.Own/Many", "/user.Own/Join"}
