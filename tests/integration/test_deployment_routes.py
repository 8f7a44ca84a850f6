"""Deployments over HTTP: operators through the door, consumers and gateways at the private API, and the command."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.access import Scope
from contract.broker import CPU_REPLICA_QUEUE
from contract.deployments import (
    DeploymentLoad,
    GatewayReport,
    ReplicaAssignment,
    ReplicaBeat,
    ReplicaClaim,
    ReplicaEnd,
    ReplicaReason,
)
from contract.errors import DeploymentNotFound, StaleFence, Unauthenticated
from contract.gateway_client import GatewayClient
from contract.private_client import PrivateClient
from inference_client import cli, errors
from inference_client.cli.exit_codes import ExitCode
from inference_client.client import InferenceClient
from inference_client.serving import ServingSpec
from private_api.database import Database
from private_api.keys import create_key
from tests.integration.public_door import DEADLINE_S, PLAIN, serve_door
from tests.running_api import RunningApi, claim_waiting_replica
from tests.zips import make_zip

ADDRESS = "10.0.0.7:8001"
ROUTE = "/api/models/echo/deployment"


@pytest.fixture
def door(private_api: RunningApi) -> Iterator[httpx.Client]:
    """A client of a door where everybody may register models; `echo` is one, with a zip."""
    with (
        serve_door(private_api.url) as url,
        httpx.Client(base_url=url, **PLAIN) as client,
    ):
        registration = {"human_readable_id": "echo", "container_tag": "echo:1", "model_available": "true"}
        answer = client.post("/api/models/", params=registration, files={"zip_file": make_zip()})
        assert answer.status_code == 200, answer.text
        yield client


@contextmanager
def consumer(api: RunningApi) -> Iterator[PrivateClient]:
    with api.consumer() as client:
        yield client


def claim(client: PrivateClient) -> ReplicaAssignment:
    return claim_waiting_replica(client, "ada")


def status(door: httpx.Client) -> Any:
    return door.get(ROUTE).json()["status"]


def test_a_deployment_lives_from_its_post_to_its_removal(
    private_api: RunningApi, door: httpx.Client, tmp_path: Path
) -> None:
    answer = door.post(ROUTE, json={"port": 8001, "replicas_min": 1})
    assert answer.status_code == 200, answer.text
    view = answer.json()
    assert (view["human_readable_id"], view["model_version"], view["status"]) == ("echo", 1, "starting")
    assert [replica["status"] for replica in view["replicas"]] == ["wanted"]
    bell = private_api.broker.receive([CPU_REPLICA_QUEUE], DEADLINE_S)
    assert bell is not None
    assert bell.uid == view["replicas"][0]["uid"]
    with consumer(private_api) as client:
        held = claim(client)
        assert client.show_replica(held.uid, held.fence) == held
        client.fetch_replica_model(held.uid, held.fence, tmp_path / "model.zip")
        assert (tmp_path / "model.zip").stat().st_size == (held.model_archive.size_bytes if held.model_archive else 0)
        assert not client.beat_replica(held.uid, held.fence, ReplicaBeat(consumer="ada", ready=False)).stop
        ready = ReplicaBeat(consumer="ada", ready=True, address=ADDRESS)
        assert not client.beat_replica(held.uid, held.fence, ready).stop
        assert status(door) == "ready"
        assert [view["human_readable_id"] for view in door.get("/api/deployments").json()] == ["echo"]
        assert door.delete(ROUTE).status_code == 204
        assert door.delete(ROUTE).status_code == 204
        assert (door.get(ROUTE).status_code, door.get(ROUTE).json()["error"]) == (404, "DeploymentNotFound")
        assert client.beat_replica(held.uid, held.fence, ready).stop
        client.end_replica(held.uid, held.fence, ReplicaEnd(consumer="ada", reason=ReplicaReason.SURPLUS))
        with pytest.raises(StaleFence):
            client.beat_replica(held.uid, held.fence, ready)
        assert client.claim_replica(ReplicaClaim(consumer="ada")) is None


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "port: Field required"),
        ({"port": 0}, "port: "),
        ({"port": 1, "surprise": 1}, "unknown parameter 'surprise'"),
        ({"port": 1, "replicas_min": 3}, "replicas_min is larger than replicas_max"),
    ],
)
def test_a_bad_description_is_refused_by_name(door: httpx.Client, body: dict[str, Any], text: str) -> None:
    answer = door.post(ROUTE, json=body)
    assert (answer.status_code, answer.json()["error"]) == (422, "InvalidRequest")
    assert text in answer.json()["detail"]
    assert door.get("/api/deployments/").json() == []


@pytest.mark.parametrize("name", ["nobody", "NOBODY"])
def test_a_model_that_is_not_registered_cannot_be_deployed(door: httpx.Client, name: str) -> None:
    answer = door.post(f"/api/models/{name}/deployment", json={"port": 1})
    assert (answer.status_code, answer.json()["error"]) == (550, "ModelNotFound")


def test_a_taken_name_is_a_conflict_and_an_unknown_id_is_not_found(door: httpx.Client) -> None:
    door.post("/api/models/", params={"human_readable_id": "other", "container_tag": "echo:1"})
    assert door.post(ROUTE, json={"port": 1, "prefix": "p"}).status_code == 200
    answer = door.post("/api/models/other/deployment", json={"port": 1, "prefix": "p"})
    assert (answer.status_code, answer.json()["error"]) == (409, "NameTaken")
    assert "'echo'" in answer.json()["detail"]
    assert door.get("/api/models/nobody/deployment").status_code == 404
    assert door.get("/api/models/NOBODY/deployment").json()["error"] == "DeploymentNotFound"
    assert door.delete("/api/models/nobody/deployment").status_code == 550


# Gateways.


def with_gateway(api: RunningApi, act: Callable[[GatewayClient], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        client = GatewayClient(api.url, api.token)
        try:
            await act(client)
        finally:
            await client.close()

    asyncio.run(run())


def test_a_gateway_is_told_of_a_change_at_once(private_api: RunningApi, door: httpx.Client) -> None:
    async def act(gateway: GatewayClient) -> None:
        empty = await gateway.table(None)
        assert empty.routes == []
        waiting = asyncio.create_task(gateway.table(empty.etag))
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
        await asyncio.to_thread(door.post, ROUTE, json={"port": 8001})
        # Far less than the time for which it may be held.
        table = await asyncio.wait_for(waiting, 60)
        assert [route.human_readable_id for route in table.routes] == ["echo"]

    with_gateway(private_api, act)


def test_a_call_that_waits_starts_a_replica_and_its_gateway_hears_when_it_is_ready(
    private_api: RunningApi, door: httpx.Client
) -> None:
    door.post(ROUTE, json={"port": 8001})

    async def act(gateway: GatewayClient) -> None:
        with pytest.raises(DeploymentNotFound):
            await gateway.demand("nobody")
        await gateway.demand("echo")
        bell = await asyncio.to_thread(private_api.broker.receive, [CPU_REPLICA_QUEUE], DEADLINE_S)
        assert bell is not None
        table = await gateway.table(None)
        waiting = asyncio.create_task(gateway.table(table.etag))
        with consumer(private_api) as client:
            held = await asyncio.to_thread(claim, client)
            await asyncio.to_thread(
                client.beat_replica, held.uid, held.fence, ReplicaBeat(consumer="ada", ready=True, address=ADDRESS)
            )
        while not (table := await asyncio.wait_for(waiting, 60)).routes[0].backends:
            waiting = asyncio.create_task(gateway.table(table.etag))
        assert table.routes[0].backends[0].uid == held.uid
        await gateway.report(
            GatewayReport(
                gateway="g1",
                deployments={"echo": DeploymentLoad(in_flight=1, queued=0)},
                replicas={held.uid: 1},
            )
        )
        assert door.get(ROUTE).json()["replicas"][0]["in_flight"] == 1
        await gateway.leave("g1")
        await gateway.leave("g1")
        assert door.get(ROUTE).json()["replicas"][0]["in_flight"] == 0

    with_gateway(private_api, act)


def test_a_gateway_learns_who_a_key_stands_for(private_api: RunningApi) -> None:
    database = Database(private_api.database_url)
    key = create_key(database, owner="ada", scopes=[Scope.SUBMIT], lifetime=None)
    database.close()

    async def act(gateway: GatewayClient) -> None:
        caller = await gateway.check_key(key)
        assert (caller.owner, caller.scopes) == ("ada", ["submit"])
        for wrong in (key[:-1] + "x", "", "nonsense"):
            with pytest.raises(Unauthenticated):
                await gateway.check_key(wrong)

    with_gateway(private_api, act)


def test_traefik_needs_no_token_and_sees_express_routes_alone(private_api: RunningApi, door: httpx.Client) -> None:
    door.post(ROUTE, json={"port": 8001, "replicas_min": 1, "express": True})
    with httpx.Client(base_url=private_api.url, **PLAIN) as traefik:
        assert traefik.get("/internal/gateways/traefik").json() == {}
        with consumer(private_api) as client:
            held = claim(client)
            client.beat_replica(held.uid, held.fence, ReplicaBeat(consumer="ada", ready=True, address=ADDRESS))
        routers = traefik.get("/internal/gateways/traefik").json()["tcp"]["routers"]
    assert routers["express-echo"]["rule"] == "HostSNI(`echo.grpc.localhost`)"


# The command.


@pytest.fixture
def infer(
    door: httpx.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("INFERENCE_SERVER_URL", str(door.base_url))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


Infer = Callable[..., tuple[int, str, str]]


@contextmanager
def host(api: RunningApi, act: Callable[[PrivateClient, ReplicaAssignment], None]) -> Iterator[None]:
    """A consumer that does this with the first replica it gets."""

    def run() -> None:
        with consumer(api) as client:
            act(client, claim(client))

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def make_ready(client: PrivateClient, held: ReplicaAssignment) -> None:
    client.beat_replica(held.uid, held.fence, ReplicaBeat(consumer="ada", ready=True, address=ADDRESS))


def make_fail(client: PrivateClient, held: ReplicaAssignment) -> None:
    end = ReplicaEnd(consumer="ada", reason=ReplicaReason.CONTAINER_ENDED, detail="no such file\x1b[2J", exit_code=3)
    client.end_replica(held.uid, held.fence, end)


def test_deploy_waits_until_the_deployment_is_ready(private_api: RunningApi, infer: Infer) -> None:
    options = ("--port", "8001", "--protocol", "kserve", "--min", "1", "--prefix", "p", "--idle-timeout", "2m")
    with host(private_api, make_ready):
        code, out, _ = infer("deploy", "echo", *options, "--wait", "--timeout", "10m")
    assert (code, out) == (0, "echo is ready, 1/1 ready\n")
    code, out, _ = infer("deployments")
    assert out.split() == ["MODEL", "VERSION", "STATUS", "READY", "CALLS", "DETAIL", "echo", "1", "ready", "1/1", "0"]
    code, out, _ = infer("deployments", "echo")
    assert "kserve, port 8001" in out
    assert "/p/" in out
    assert "ada" in out
    view = json.loads(infer("deployments", "echo", "--json")[1])
    assert (view["serving"]["idle_timeout_s"], view["serving"]["replicas_max"]) == (120, 1)
    assert infer("undeploy", "echo")[0] == 0
    assert infer("deployments", "echo")[0] == ExitCode.NOT_FOUND


def test_deploy_says_why_a_deployment_fails(private_api: RunningApi, infer: Infer) -> None:
    with host(private_api, make_fail):
        code, out, err = infer("deploy", "echo", "--port", "8001", "--min", "1", "--wait")
    assert (code, out) == (ExitCode.TASK_FAILED, "")
    assert "echo fails: container_ended, exit code 3: no such file" in err
    assert "\x1b" not in err
    table = infer("deployments")[1]
    assert "failing" in table
    assert "\x1b" not in table


def test_deploy_does_not_wait_for_ever(infer: Infer) -> None:
    code, _, err = infer("deploy", "echo", "--port", "8001", "--min", "1", "--wait", "--timeout", "1")
    assert code == ExitCode.NOT_ENDED
    assert "not ready within 1s" in err


def test_deploy_without_a_minimum_waits_for_nothing(infer: Infer) -> None:
    assert infer("deploy", "echo", "--port", "8001", "--wait")[:2] == (0, "echo is idle, 0/0 ready\n")


def test_deploy_takes_the_whole_description_from_a_file(infer: Infer, tmp_path: Path, door: httpx.Client) -> None:
    file = tmp_path / "serving.json"
    file.write_text(json.dumps({"port": 9, "model_names": ["a", "b"], "priority": 7}))
    code, out, _ = infer("deploy", "echo", "--serving", file, "--json")
    assert code == 0
    assert json.loads(out)["serving"]["model_names"] == ["a", "b"]
    assert infer("deploy", "echo", "--serving", file, "--port", "8001")[0] == ExitCode.USAGE
    assert infer("deploy", "echo")[0] == ExitCode.USAGE
    file.write_text('{"port": 0, "surprise": 1}')
    code, _, err = infer("deploy", "echo", "--serving", file)
    assert code == ExitCode.USAGE
    assert "port: " in err
    assert "surprise: " in err
    file.write_text("{")
    assert "is not JSON" in infer("deploy", "echo", "--serving", file)[2]
    assert infer("deploy", "nobody", "--port", "1")[0] == ExitCode.NOT_FOUND


def test_the_python_client_deploys_lists_and_removes(door: httpx.Client) -> None:
    with InferenceClient(str(door.base_url)) as client:
        view = client.deploy("echo", ServingSpec(port=8001))
        assert client.get_deployment("echo") == view
        assert list(client.list_deployments()) == [view]
        assert client.wait_deployment("echo") == view
        client.undeploy("echo")
        with pytest.raises(errors.DeploymentNotFound):
            client.get_deployment("echo")
