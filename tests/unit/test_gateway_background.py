"""What the gateway does beside its calls does not fail unheard."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from contract.deployments import Backend, DeploymentStatus, Route
from contract.gateway_client import GatewayClient
from contract.serving import ServingSpec
from grpc_gateway.admission import CallClass, Limits
from grpc_gateway.background import Background
from grpc_gateway.deployments import Deployment
from grpc_gateway.method_types import MethodTypes
from grpc_gateway.replicas import Replica
from grpc_gateway.table_sync import Demands
from tests.integration.relay_upstream import upstream
from tests.waiting import wait_until

UID = "a" * 64
NO_JSON = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno!"


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until `condition` holds."""
    await asyncio.to_thread(wait_until, condition)


def test_a_task_that_fails_is_logged_with_its_name_and_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("unforeseen")

    async def start() -> None:
        Background().start(fail(), "the work")
        await until(lambda: failures(caplog))

    asyncio.run(start())
    assert failures(caplog) == ["the work failed"]
    assert "unforeseen" in caplog.text


def test_cancelled_tasks_have_ended_and_are_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    async def start_and_cancel() -> None:
        background = Background()
        background.start(wait(), "waiting")
        await asyncio.sleep(0)
        await background.cancel()
        assert ended == ["cleaned up"]

    asyncio.run(start_and_cancel())
    assert failures(caplog) == []


def test_an_answer_to_a_demand_that_nobody_foresaw_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def ask(url: str) -> None:
        client = GatewayClient(url, "token")
        Demands(client).ask("echo")
        await until(lambda: failures(caplog))
        await client.close()

    with upstream(NO_JSON) as private_api:
        asyncio.run(ask(private_api.url))
    assert failures(caplog) == ["asking for a replica of echo failed"]


def test_a_watch_on_a_leaving_replica_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    route = Route(
        human_readable_id="echo",
        serving=ServingSpec(port=50051),
        status=DeploymentStatus.READY,
        # An address that no consumer reports: its port is no number.
        backends=[Backend(uid=UID, address="127.0.0.1:x")],
        model_version=1,
    )

    async def leave() -> None:
        deployment = Deployment(route, Limits(), lambda _: None)
        await deployment.acquire(CallClass.INFER, "", None)
        deployment.update(route.model_copy(update={"backends": []}))
        await until(lambda: failures(caplog))
        await deployment.abandon()

    asyncio.run(leave())
    assert failures(caplog) == [f"replica={UID[:12]}: watching it leave failed"]


def test_a_replica_that_left_before_it_was_asked_says_nothing_of_its_methods(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def ask() -> None:
        replica = Replica(Backend(uid=UID, address="127.0.0.1:9"))
        await replica.close()
        method_types = MethodTypes()
        method_types.follow([replica])
        assert not method_types.is_unary("/user.Own/Echo")
        await until(lambda: "says nothing of its methods" in caplog.text)

    asyncio.run(ask())
    assert failures(caplog) == []
