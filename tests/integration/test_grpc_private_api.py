"""A gateway with a private API that really runs: the table, demands, reports, keys, and what happens without it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from contract.access import Scope
from contract.deployments import ReplicaAssignment, ReplicaBeat, ReplicaClaim
from contract.gateway_client import GatewayClient
from contract.tokens import Claims, replica_key, sign_token
from grpc_gateway.table_sync import Demands
from kit.protobuf import text_field, varint_field
from private_api.database import Database
from private_api.keys import create_key, revoke_key, rotate_key
from tests.databases import opened
from tests.integration.grpc_backend import Backend, run_backend
from tests.integration.grpc_harness import RunningGateway, route, run_harness_gateway, status_of, trailers_of
from tests.integration.public_door import PLAIN, serve_door
from tests.running_api import TOKEN, RunningApi, run_private_api
from tests.tcp_proxy import Mode, TcpProxy
from tests.waiting import PATIENCE_S, check_for, wait_until
from tests.zips import make_zip

CODE = grpc.StatusCode
ECHO = "/user.Own/Echo"
HELD = "/user.Own/Held"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
MODEL_READY = "/inference.GRPCInferenceService/ModelReady"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
INFER_M = text_field(1, "m")
"""A request of KServe that names the model `m`."""


@dataclass
class Consumer:
    """A consumer that hosts what it is offered, at the address of a backend."""

    api: RunningApi

    def deploy(self, name: str, **serving: Any) -> None:
        with self.api.client() as http:
            asked = {"human_readable_id": name, "container_tag": "image:1"}
            http.post("/api/models/", params=asked).raise_for_status()
            http.post(f"/api/models/{name}/deployment", json={"port": 50051} | serving).raise_for_status()

    def undeploy(self, name: str) -> None:
        with self.api.client() as http:
            http.delete(f"/api/models/{name}/deployment").raise_for_status()

    def show(self, name: str) -> dict[str, Any]:
        with self.api.client() as http:
            found: dict[str, Any] = http.get(f"/api/models/{name}/deployment").raise_for_status().json()
            return found

    def host(self, backend: Backend) -> ReplicaAssignment:
        """Claim the next replica that is wanted, and say that it is ready."""
        with self.api.consumer() as client:
            claims: list[ReplicaAssignment] = []

            def claim() -> bool:
                got = client.claim_replica(ReplicaClaim(consumer="c"))
                claims.extend([got] if got else [])
                return got is not None

            wait_until(claim, "a replica is wanted")
            self.beat(claims[0], backend)
            return claims[0]

    def beat(self, held: ReplicaAssignment, backend: Backend) -> bool:
        """Whether it should stop."""
        with self.api.consumer() as client:
            beat = ReplicaBeat(consumer="c", ready=True, address=backend.address)
            return client.beat_replica(held.uid, held.fence, beat).stop


@pytest.fixture
def api(postgres_url: str, tmp_path: Path) -> Iterator[RunningApi]:
    with run_private_api(postgres_url, tmp_path / "data") as api:
        yield api


@pytest.fixture
def consumer(api: RunningApi) -> Consumer:
    return Consumer(api)


@pytest.fixture
def backend() -> Iterator[Backend]:
    with run_backend() as backend:
        yield backend


@pytest.fixture
def gateway(api: RunningApi) -> Iterator[RunningGateway]:
    with run_harness_gateway(api.url) as gateway:
        wait_until(lambda: gateway.server.table.is_populated, "the first table")
        yield gateway


def test_a_call_starts_the_first_replica_and_is_answered_by_it(
    gateway: RunningGateway, consumer: Consumer, backend: Backend
) -> None:
    consumer.deploy("m")
    wait_until(lambda: "m" in gateway.server.table.deployments, "the deployment is in the table")
    assert consumer.show("m")["replicas"] == []
    call = gateway.unary(ECHO).future(b"cold", metadata=(("application", "m"),), timeout=60)
    # The gateway asked for it: nobody else did.
    consumer.host(backend)
    assert call.result(60) == b"cold"
    assert consumer.show("m")["status"] == "ready"


def test_a_call_to_an_application_that_was_deployed_just_now_never_goes_to_the_only_older_one(
    consumer: Consumer, backend: Backend, gateway: RunningGateway
) -> None:
    consumer.deploy("younger", start_timeout_s=1)
    wait_until(
        lambda: "younger" in gateway.server.table.deployments, "the gateway has it, and waits for the next change"
    )
    # As if that answer were still under way.
    gateway.give(route("older", backend))
    with pytest.raises(grpc.RpcError) as caught:
        gateway.unary(ECHO)(b"x", metadata=(("application", "younger"),), timeout=PATIENCE_S)
    assert caught.value.code() is CODE.UNAVAILABLE
    assert "younger" in caught.value.details()
    assert backend.seen == []


def test_a_demand_alone_starts_a_replica(api: RunningApi, consumer: Consumer, backend: Backend) -> None:
    consumer.deploy("m")

    async def ask() -> None:
        client = GatewayClient(api.url, TOKEN)
        Demands(client).ask("m")
        # Beside it, in a thread: this event loop sends the demand.
        await asyncio.to_thread(consumer.host, backend)
        await client.close()

    asyncio.run(ask())


def test_reports_say_what_is_open_and_a_drained_replica_ends_after_its_calls(
    gateway: RunningGateway, consumer: Consumer, backend: Backend
) -> None:
    consumer.deploy("m", replicas_min=1)
    held = consumer.host(backend)
    wait_until(lambda: gateway.server.table.deployments["m"].replicas, "the replica is in the table")
    call = gateway.unary(HELD).future(b"kept", timeout=60)
    wait_until(lambda: consumer.show("m")["replicas"][0]["in_flight"] == 1, "the call is reported")
    consumer.undeploy("m")
    wait_until(lambda: not gateway.server.table.deployments, "the deployment left the table")
    check_for(1.5, lambda: not consumer.beat(held, backend), "the replica has a call to end")
    backend.may_go_on.set()
    assert call.result(60) == b"kept"
    wait_until(lambda: consumer.beat(held, backend), "the replica may end")


def test_a_gateway_that_stops_holds_nothing_back(api: RunningApi, consumer: Consumer, backend: Backend) -> None:
    with run_harness_gateway(api.url) as gateway:
        consumer.deploy("m", replicas_min=1)
        consumer.host(backend)
        wait_until(lambda: "m" in gateway.server.table.deployments, "the deployment is in the table")
        wait_until(lambda: gateway.server.table.deployments["m"].replicas, "the replica is in the table")
        wait_until(lambda: _reports(api) == ["harness"], "the gateway reports")
    assert _reports(api) == []


def test_without_the_private_api_the_last_table_stays_in_use(api: RunningApi, backend: Backend) -> None:
    consumer = Consumer(api)
    consumer.deploy("m", replicas_min=1)
    with TcpProxy(api.url, 80) as proxy, run_harness_gateway(proxy.url) as gateway:
        consumer.host(backend)
        wait_until(lambda: "m" in gateway.server.table.deployments, "the deployment is in the table")
        wait_until(lambda: gateway.server.table.deployments["m"].replicas, "the replica is in the table")
        proxy.set_mode(Mode.REFUSE)
        health = gateway.unary("/grpc.health.v1.Health/Check")
        for _ in range(20):
            assert gateway.unary(ECHO)(b"x", timeout=60) == b"x"
            assert health(b"", timeout=60) == b"\x08\x01"
        proxy.set_mode(Mode.PASS)
        consumer.undeploy("m")
        wait_until(lambda: not gateway.server.table.deployments, "the new table came")


@contextmanager
def keyed_gateway(api: RunningApi, *, requires_key: bool = True) -> Iterator[RunningGateway]:
    with run_harness_gateway(api.url, requires_key=requires_key) as gateway:
        wait_until(lambda: "m" in gateway.server.table.deployments, "the deployment is in the table")
        wait_until(lambda: gateway.server.table.deployments["m"].replicas, "the replica is in the table")
        yield gateway


def make_key(api: RunningApi, *scopes: Scope) -> str:
    database = Database(api.database_url)
    try:
        return create_key(database, owner="ada", scopes=scopes, lifetime=None)
    finally:
        database.close()


@pytest.fixture
def ready(consumer: Consumer, backend: Backend) -> ReplicaAssignment:
    consumer.deploy("m", replicas_min=1)
    return consumer.host(backend)


def say(gateway: RunningGateway, **metadata: str) -> bytes:
    answer: bytes = gateway.unary(ECHO)(b"x", metadata=tuple(metadata.items()), timeout=60)
    return answer


def say_inside(gateway: RunningGateway, token: str) -> bytes:
    """As a container of a deployment does."""
    answer: bytes = gateway.inside.unary_unary(ECHO)(b"x", metadata=(("authorization", f"Bearer {token}"),), timeout=60)
    return answer


@pytest.mark.usefixtures("ready")
def test_a_key_opens_the_gateway_in_both_forms_and_stays_there(api: RunningApi, backend: Backend) -> None:
    key = make_key(api, Scope.SUBMIT)
    with keyed_gateway(api) as gateway:
        assert say(gateway, **{"x-api-key": key}) == b"x"
        assert say(gateway, authorization=f"Bearer {key}") == b"x"
    for _, metadata, _ in backend.seen:
        assert not {"x-api-key", "authorization"} & metadata.keys()


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("scope", Scope)
def test_both_doors_let_the_same_keys_have_a_model_compute(api: RunningApi, backend: Backend, scope: Scope) -> None:
    key = {"x-api-key": make_key(api, scope)}
    with (
        keyed_gateway(api) as gateway,
        serve_door(api.url, require_key=True, allow_post_model=False) as url,
        httpx.Client(base_url=url, headers=key, **PLAIN) as http,
    ):
        submitted = http.post("/api/tasks/", params={"human_readable_id": "m"}, files={"zip_file": make_zip()})
        calls = [
            lambda: say(gateway, **key),
            lambda: next(gateway.stream(ECHO)(iter([b"x"]), metadata=tuple(key.items()), timeout=60)),
            lambda: next(gateway.stream(STREAM_INFER)(iter([INFER_M]), metadata=tuple(key.items()), timeout=60)),
        ]
        if scope in (Scope.SUBMIT, Scope.ADMIN):
            assert submitted.status_code == 200
            assert [call() for call in calls] == [b"x", b"x", INFER_M]
            return
        assert submitted.status_code == 403
        for call in calls:
            refused = status_of(call)
            assert (refused.code(), refused.details()) == (
                CODE.PERMISSION_DENIED,
                "This key may not submit tasks: it lacks the scope submit.",
            )
        assert backend.seen == []


@pytest.mark.parametrize("scope", [Scope.OPERATE, Scope.MODELS])
def test_a_key_that_may_not_submit_sees_what_there_is_and_starts_nothing(
    api: RunningApi, consumer: Consumer, scope: Scope
) -> None:
    consumer.deploy("m")
    key = (("x-api-key", make_key(api, scope)),)
    with run_harness_gateway(api.url, requires_key=True) as gateway:
        wait_until(lambda: "m" in gateway.server.table.deployments, "the deployment is in the table")
        names = gateway.unary("/ray.serve.RayServeAPIService/ListApplications")
        assert names(b"", metadata=key, timeout=60) == text_field(1, "m")
        assert gateway.unary(MODEL_READY)(INFER_M, metadata=key, timeout=60) == varint_field(1, True)
        question = reflection_pb2.ServerReflectionRequest(list_services="*").SerializeToString()
        asked = gateway.stream(REFLECTION)(iter([question]), metadata=(*key, ("application", "m")), timeout=60)
        assert reflection_pb2.ServerReflectionResponse.FromString(next(asked)).HasField("list_services_response")
        refused = status_of(lambda: gateway.unary(ECHO)(b"", metadata=(*key, ("application", "m")), timeout=60))
        assert refused.code() is CODE.PERMISSION_DENIED
    assert consumer.show("m")["status"] == "idle"


def test_a_consumers_key_sees_nothing(api: RunningApi) -> None:
    key = (("x-api-key", make_key(api, Scope.CONSUME)),)
    with run_harness_gateway(api.url, requires_key=True) as gateway:
        wait_until(lambda: gateway.server.table.is_populated, "the first table")
        names = gateway.unary("/ray.serve.RayServeAPIService/ListApplications")
        refused = status_of(lambda: names(b"", metadata=key, timeout=60))
        assert refused.code() is CODE.PERMISSION_DENIED


@pytest.mark.usefixtures("ready")
def test_without_a_good_key_calls_are_refused_in_the_words_of_the_http_door(api: RunningApi, backend: Backend) -> None:
    with keyed_gateway(api) as gateway:
        unknown = f"is_{'0' * 16}_{'0' * 64}"
        for metadata, code, text in (
            ({}, CODE.UNAUTHENTICATED, "this server wants a key: X-API-Key: <key>, or Authorization: Bearer <key>"),
            ({"x-api-key": "nonsense"}, CODE.UNAUTHENTICATED, "what was given is not a key"),
            ({"x-api-key": unknown}, CODE.UNAUTHENTICATED, "this key is not known here"),
            (
                {"x-api-key": make_key(api, Scope.MODELS)},
                CODE.PERMISSION_DENIED,
                "This key may not submit tasks: it lacks the scope submit.",
            ),
        ):
            refused = status_of(lambda metadata=metadata: say(gateway, **metadata))
            assert refused.code() is code
            assert refused.details().startswith(text)
            assert "request_id" in trailers_of(refused)
            stream = gateway.stream(ECHO)(iter([b"x"]), metadata=tuple(metadata.items()), timeout=60)
            assert status_of(lambda stream=stream: next(stream)).code() is code
        # Load balancers ask without a key; what tells names wants one.
        assert gateway.unary("/grpc.health.v1.Health/Check")(b"", timeout=60)
        assert gateway.unary("/ray.serve.RayServeAPIService/Healthz")(b"", timeout=60)
        assert gateway.unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=60)
        names = gateway.unary("/ray.serve.RayServeAPIService/ListApplications")
        assert status_of(lambda: names(b"", timeout=60)).code() is CODE.UNAUTHENTICATED
        for path in ("/nobody/user.Own/Echo", "/inference.GRPCInferenceService/ModelReady"):
            hidden = status_of(lambda path=path: gateway.unary(path)(b"", timeout=60))
            assert hidden.code() is CODE.UNAUTHENTICATED
    assert backend.seen == []


@pytest.mark.usefixtures("ready")
def test_in_the_open_mode_no_key_is_needed_but_a_wrong_one_is_refused(api: RunningApi) -> None:
    with keyed_gateway(api, requires_key=False) as gateway:
        assert say(gateway) == b"x"
        assert say(gateway, authorization="Basic abc") == b"x"
        assert status_of(lambda: say(gateway, **{"x-api-key": "nonsense"})).code() is CODE.UNAUTHENTICATED


@pytest.mark.usefixtures("ready")
def test_a_key_that_was_good_is_good_for_a_moment_and_while_nobody_can_be_asked(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(api, Scope.SUBMIT)
    with TcpProxy(api.url, 80) as proxy, run_harness_gateway(proxy.url, requires_key=True) as gateway:
        wait_until(lambda: "m" in gateway.server.table.deployments, "the deployment is in the table")
        wait_until(lambda: gateway.server.table.deployments["m"].replicas, "the replica is in the table")
        assert say(gateway, **{"x-api-key": key}) == b"x"
        database = Database(api.database_url)
        assert revoke_key(database, key.split("_")[1])
        database.close()
        assert say(gateway, **{"x-api-key": key}) == b"x"
        # The moment is over, and the private API away: the answer of before stands.
        monkeypatch.setattr("grpc_gateway.keys.GOOD_FOR_S", 0.0)
        proxy.set_mode(Mode.REFUSE)
        assert say(gateway, **{"x-api-key": key}) == b"x"
        new = status_of(lambda: say(gateway, **{"x-api-key": f"is_{'1' * 16}_{'1' * 64}"}))
        assert new.code() is CODE.UNAVAILABLE
        proxy.set_mode(Mode.PASS)
        assert status_of(lambda: say(gateway, **{"x-api-key": key})).code() is CODE.UNAUTHENTICATED


def test_what_cannot_be_a_key_is_refused_without_a_question(api: RunningApi) -> None:
    with run_harness_gateway() as gateway:
        gateway.give()
        refused = status_of(lambda: say(gateway, **{"x-api-key": "k" * 1000}))
        assert refused.code() is CODE.UNAUTHENTICATED
        assert refused.details().startswith("what was given is not a key")


def test_a_private_api_that_does_not_answer_is_told(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grpc_gateway.keys._PATIENCE_S", 0.5)
    with TcpProxy(api.url, 80) as proxy, run_harness_gateway(proxy.url) as gateway:
        wait_until(lambda: gateway.server.table.is_populated, "the first table")
        proxy.set_mode(Mode.BLACKHOLE)
        refused = status_of(lambda: say(gateway, **{"x-api-key": f"is_{'1' * 16}_{'1' * 64}"}))
        assert refused.code() is CODE.UNAVAILABLE
        assert refused.details().startswith("The private API did not answer.")
        proxy.set_mode(Mode.PASS)


def test_a_replica_calls_with_its_token_as_long_as_it_lives(
    api: RunningApi, ready: ReplicaAssignment, consumer: Consumer
) -> None:
    token = ready.environment["GATEWAY_TOKEN"]
    with keyed_gateway(api) as gateway:
        assert say_inside(gateway, token) == b"x"
        outside = status_of(lambda: say(gateway, authorization=f"Bearer {token}"))
        assert outside.code() is CODE.UNAUTHENTICATED
        assert "only from inside its container" in outside.details()
        # One of the release before, whose containers call where everybody calls.
        old = sign_token(replica_key(TOKEN), Claims(ready.uid, None, None))
        assert say(gateway, authorization=f"Bearer {old}") == b"x"
        stranger = sign_token(replica_key(TOKEN), Claims("f" * 64, None, None))
        forged = sign_token(replica_key("another-service-token"), Claims(ready.uid, None, None))
        for bad, text in (
            (stranger, "the replica that this token was made for is no more"),
            (forged, "the token was not issued here; authenticate again"),
        ):
            refused = status_of(lambda bad=bad: say_inside(gateway, bad))
            assert (refused.code(), refused.details()) == (CODE.UNAUTHENTICATED, text)


def deployed_with(api: RunningApi, *scopes: Scope) -> tuple[str, ReplicaAssignment]:
    """A key, and a ready replica that was deployed with it."""
    with opened(api.database_url) as database:
        key = create_key(database, owner="ada", scopes=scopes, lifetime=None)
    with (
        serve_door(api.url, require_key=True) as url,
        httpx.Client(base_url=url, headers={"X-API-Key": key}, **PLAIN) as ada,
    ):
        ada.post("/api/models/", params={"human_readable_id": "m", "container_tag": "m:1"}).raise_for_status()
        ada.post("/api/models/m/deployment", json={"port": 50051, "replicas_min": 1}).raise_for_status()
    with run_backend() as backend:
        return key, Consumer(api).host(backend)


def test_a_replica_calls_by_the_rights_of_the_key_that_deployed_it(api: RunningApi) -> None:
    key, replica = deployed_with(api, Scope.SUBMIT, Scope.MODELS)
    token = replica.environment["GATEWAY_TOKEN"]
    key_id = key.split("_")[1]

    def may_call(gateway: RunningGateway) -> bool:
        error = status_of(lambda: say_inside(gateway, token))
        # Nothing answers there; whether it may call is judged before.
        return error.code() is not CODE.UNAUTHENTICATED

    with keyed_gateway(api) as gateway, opened(api.database_url) as database:
        assert may_call(gateway)
        replaced = rotate_key(database, key_id, timedelta())
        assert replaced is not None
        # The key in its place has what it deployed.
        wait_until(lambda: key_id in gateway.server.table.ended_keys, "the gateway knows that the old key ended")
        assert may_call(gateway)
        revoke_key(database, replaced.split("_")[1])
        wait_until(lambda: not may_call(gateway), "its replicas call nobody any more")
        assert "has ended, or lacks the scope submit" in status_of(lambda: say_inside(gateway, token)).details()


def test_a_key_that_may_not_submit_deploys_replicas_that_call_nobody(api: RunningApi) -> None:
    _, replica = deployed_with(api, Scope.MODELS)
    with keyed_gateway(api) as gateway:
        refused = status_of(lambda: say_inside(gateway, replica.environment["GATEWAY_TOKEN"]))
        assert refused.code() is CODE.UNAUTHENTICATED


def _reports(api: RunningApi) -> list[str]:
    from sqlalchemy import text

    database = Database(api.database_url)
    try:
        with database.read() as session:
            return list(session.scalars(text("SELECT name FROM gateways ORDER BY name")))
    finally:
        database.close()
