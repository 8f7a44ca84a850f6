"""Of a message whose caller has no right to send it, the gateway receives no more than a small window."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from contract.access import Scope
from private_api.keys import create_key, revoke_key
from tests.databases import opened
from tests.integration.grpc_backend import run_backend
from tests.integration.grpc_harness import CLIENT_OPTIONS, RunningGateway, route, run_harness_gateway, status_of
from tests.running_api import RunningApi
from tests.tcp_proxy import TcpProxy
from tests.waiting import START_S, wait_until

MIB = 1024**2
MESSAGE = bytes(64 * MIB)
WINDOW = 16 * MIB
"""More than what grpc takes of a stream that nobody reads, and than what the kernel's buffers hold."""
INFER = "/inference.GRPCInferenceService/ModelInfer"
LOAD = "/inference.GRPCInferenceService/ModelConfig"
CODE = grpc.StatusCode


@pytest.fixture
def gateway(private_api: RunningApi) -> Iterator[RunningGateway]:
    with run_backend() as backend, run_harness_gateway(private_api.url, requires_key=True) as gateway:
        wait_until(lambda: gateway.server.table.is_populated, "the routing table")
        gateway.give(route("m", backend))
        yield gateway


@contextmanager
def counting(gateway: RunningGateway) -> Iterator[tuple[grpc.Channel, bytearray]]:
    """A connection of its own, and all that passed it."""
    heard = bytearray()
    with (
        TcpProxy(f"//127.0.0.1:{gateway.port}", 0, heard=heard) as proxy,
        grpc.insecure_channel(f"127.0.0.1:{proxy.port}", options=CLIENT_OPTIONS) as channel,
    ):
        yield channel, heard


def key_of(private_api: RunningApi, *scopes: Scope) -> str:
    with opened(private_api.database_url) as database:
        return create_key(database, owner="ada", scopes=scopes, lifetime=None)


def send(channel: grpc.Channel, path: str, key: str | None) -> Any:
    metadata = [("x-api-key", key)] if key else []
    return status_of(lambda: channel.unary_unary(path)(MESSAGE, metadata=metadata, timeout=3 * START_S))


@pytest.mark.parametrize("path", [INFER, LOAD])
@pytest.mark.parametrize("who", ["nobody", "stranger", "without the scope", "ended"])
def test_nothing_is_read_before_the_key(private_api: RunningApi, gateway: RunningGateway, path: str, who: str) -> None:
    if (path, who) == (LOAD, "without the scope"):
        pytest.skip("any key may ask for it")
    keys = {
        "nobody": None,
        "stranger": f"is_{'0' * 16}_{'0' * 64}",
        "without the scope": key_of(private_api, Scope.MODELS),
        "ended": key_of(private_api, Scope.SUBMIT),
    }
    with opened(private_api.database_url) as database:
        revoke_key(database, str(keys["ended"]).split("_")[1])
    with counting(gateway) as (channel, heard):
        error = send(channel, path, keys[who])
        # What was under way when the refusal came has arrived by then.
        time.sleep(0.5)
        assert error.code() is (CODE.PERMISSION_DENIED if who == "without the scope" else CODE.UNAUTHENTICATED)
        assert len(heard) < WINDOW


def test_a_good_key_sends_its_message_the_first_time_and_after(
    private_api: RunningApi, gateway: RunningGateway
) -> None:
    key = key_of(private_api, Scope.SUBMIT)
    call = gateway.channel.unary_unary(INFER)
    metadata = (("x-api-key", key), ("x-echo", "1"))
    answers = [call.with_call(b"\n\x01m", metadata=metadata, timeout=3 * START_S) for _ in range(2)]
    (first, how_first), (second, how_second) = answers
    assert first == second
    assert dict(how_first.trailing_metadata()).keys() == dict(how_second.trailing_metadata()).keys()
