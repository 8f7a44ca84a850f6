"""A key per consumer's host: whose a consumer is, over both kinds of database and real HTTP."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from contract.access import Scope
from contract.archive_fetch import AS_HEADER, AS_PATH, PATH_HEADER
from contract.claims import ClaimRequest
from contract.deployments import ReplicaBeat, ReplicaClaim, ReplicaEnd, ReplicaReason
from contract.errors import InferenceError, PermissionDenied, StaleFence, Unauthenticated
from contract.gateway_client import GatewayClient
from contract.heartbeats import Heartbeat
from contract.private_client import PrivateClient
from contract.schemas import Assignment, Commit, ConsumerRegistration, Failure, Release
from contract.statuses import Phase, Reason
from private_api.database import Database
from private_api.keys import create_key, revoke_key
from private_api.leases import LEASE
from private_api.tables import ConsumerRow
from tests.running_api import RunningApi, claim_waiting_replica
from tests.zips import make_zip


class Hosts:
    """Clients of one private API, each with a secret of its own."""

    def __init__(self, api: RunningApi, database: Database, stack: ExitStack) -> None:
        self.api = api
        self.database = database
        self._stack = stack

    def key(self, owner: str) -> str:
        return create_key(self.database, owner=owner, scopes=[Scope.CONSUME], lifetime=None)

    def client(self, secret: str) -> PrivateClient:
        return self._stack.enter_context(PrivateClient(self.api.url, secret))

    def of(self, owner: str) -> PrivateClient:
        return self.client(self.key(owner))

    def submit(self) -> str:
        with self.api.client() as http:
            answer = http.post("/api/tasks/?human_readable_id=echo", files={"zip_file": make_zip()})
        uid: str = answer.json()
        return uid

    def let_be_silent(self, consumer: str) -> None:
        with self.database.write() as session:
            session.get_one(ConsumerRow, consumer).seen_at -= LEASE + timedelta(seconds=1)


@pytest.fixture
def hosts(private_api: RunningApi) -> Iterator[Hosts]:
    with ExitStack() as stack:
        database = Database(private_api.database_url)
        stack.callback(database.close)
        with private_api.client() as http:
            http.post("/api/models/", params={"human_readable_id": "echo", "container_tag": "echo:1"})
        yield Hosts(private_api, database, stack)


def register(client: PrivateClient, consumer: str) -> None:
    client.register(ConsumerRegistration(consumer=consumer))


def claim(client: PrivateClient, consumer: str) -> Assignment:
    held = client.claim(ClaimRequest(consumer=consumer))
    assert held is not None
    return held


def beat(client: PrivateClient, held: Assignment, consumer: str) -> None:
    client.beat(held.uid, held.fence, Heartbeat(consumer=consumer, phase=Phase.RUNNING))


def deliver(client: PrivateClient, held: Assignment, consumer: str) -> None:
    stored = client.upload_output(held.uid, held.fence, [make_zip()])
    commit = Commit(consumer=consumer, sha256=stored.sha256, size_bytes=stored.size_bytes)
    assert client.commit(held.uid, held.fence, commit).status == "finished"


def test_a_consumer_does_all_its_work_with_its_hosts_key(hosts: Hosts, tmp_path: Path) -> None:
    mine = hosts.of("host-a")
    register(mine, "a-1")
    uid = hosts.submit()
    held = claim(mine, "a-1")
    assert held == mine.show(uid, held.fence)
    mine.fetch_input(uid, held.fence, tmp_path / "input.zip")
    beat(mine, held, "a-1")
    mine.append_log(uid, held.fence, 0, b"a line\n")
    deliver(mine, held, "a-1")


def test_a_key_is_not_told_where_archives_lie(hosts: Hosts, tmp_path: Path) -> None:
    secret = hosts.key("host-a")
    mine = hosts.client(secret)
    register(mine, "a-1")
    uid = hosts.submit()
    held = claim(mine, "a-1")
    url = f"{hosts.api.url}/internal/tasks/{uid}/attempts/{held.fence}/input"
    answer = httpx.get(url, headers={AS_HEADER: AS_PATH, "Authorization": f"Bearer {secret}"}, trust_env=False)
    assert answer.status_code == 200
    assert PATH_HEADER not in answer.headers
    (stored,) = hosts.api.files()
    archive = hosts.api.data_dir / "archives" / stored
    assert answer.content == archive.read_bytes()
    mine.fetch_input(uid, held.fence, tmp_path / "input.zip")
    assert not archive.samefile(tmp_path / "input.zip")


@pytest.mark.parametrize("stranger", ["another host's key", "the service token"])
def test_nobody_else_speaks_for_a_consumer_of_a_key(hosts: Hosts, tmp_path: Path, stranger: str) -> None:
    mine = hosts.of("host-a")
    other = hosts.of("host-b") if "key" in stranger else hosts.client(hosts.api.token)
    register(mine, "a-1")
    uid = hosts.submit()
    held = claim(mine, "a-1")
    hosts.submit()
    commit = Commit(consumer="a-1", sha256="0" * 64, size_bytes=1)
    failure = Failure(consumer="a-1", reason=Reason.EXIT_CODE, detail="no")
    release = Release(consumer="a-1", detail="no", blameless=True)
    calls: list[Callable[[], object]] = [
        lambda: register(other, "a-1"),
        lambda: other.claim(ClaimRequest(consumer="a-1")),
        lambda: other.show(uid, held.fence),
        lambda: beat(other, held, "a-1"),
        lambda: other.commit(uid, held.fence, commit),
        lambda: other.fail(uid, held.fence, failure),
        lambda: other.release(uid, held.fence, release),
        lambda: other.append_log(uid, held.fence, 0, b"no"),
        lambda: other.fetch_input(uid, held.fence, tmp_path / "x"),
        lambda: other.fetch_model(uid, held.fence, tmp_path / "x"),
        lambda: other.upload_output(uid, held.fence, [make_zip()]),
    ]
    for call in calls:
        with pytest.raises(PermissionDenied, match="the consumer a-1 belongs to the owner host-a"):
            call()
    assert other.is_refused
    # It was refused, and changed nothing.
    deliver(mine, held, "a-1")


def test_a_heartbeat_speaks_for_no_other_consumer(hosts: Hosts) -> None:
    mine, other = hosts.of("host-a"), hosts.of("host-b")
    register(other, "b-1")
    hosts.submit()
    held = claim(mine, "a-1")
    with pytest.raises(PermissionDenied, match="one of a-1, not of b-1"):
        beat(mine, held, "b-1")


def test_a_consumer_of_the_service_token_is_out_of_every_keys_reach(hosts: Hosts, tmp_path: Path) -> None:
    trusted, other = hosts.client(hosts.api.token), hosts.of("host-b")
    uid = hosts.submit()
    held = claim(trusted, "cpu")
    with pytest.raises(PermissionDenied, match="proves itself with the service token"):
        other.fetch_input(uid, held.fence, tmp_path / "x")
    for call in (lambda: register(other, "cpu"), lambda: other.claim(ClaimRequest(consumer="cpu"))):
        with pytest.raises(PermissionDenied, match="once it was silent for 60 s"):
            call()
    beat(trusted, held, "cpu")


def test_a_silent_consumers_name_goes_over_to_a_key_but_none_of_its_attempts(hosts: Hosts, tmp_path: Path) -> None:
    trusted, mine = hosts.client(hosts.api.token), hosts.of("host-a")
    uid = hosts.submit()
    old = claim(trusted, "cpu")
    hosts.let_be_silent("cpu")
    register(mine, "cpu")
    for call in (
        lambda: mine.show(uid, old.fence),
        lambda: mine.fetch_input(uid, old.fence, tmp_path / "x"),
        lambda: beat(mine, old, "cpu"),
    ):
        with pytest.raises(StaleFence):
            call()
    with pytest.raises(PermissionDenied, match="belongs to the owner host-a"):
        register(trusted, "cpu")
    hosts.submit()
    deliver(mine, claim(mine, "cpu"), "cpu")


def test_a_key_is_replaced_while_both_are_valid_and_a_revoked_one_ends_at_once(hosts: Hosts) -> None:
    first, second = hosts.key("host-a"), hosts.key("host-a")
    old, new = hosts.client(first), hosts.client(second)
    register(old, "a-1")
    hosts.submit()
    held = claim(old, "a-1")
    beat(new, held, "a-1")
    beat(old, held, "a-1")
    revoke_key(hosts.database, first.split("_")[1])
    with pytest.raises(Unauthenticated, match="revoked"):
        beat(old, held, "a-1")
    deliver(new, held, "a-1")


@pytest.mark.parametrize("scopes", [[Scope.SUBMIT], [Scope.ADMIN], [Scope.MODELS, Scope.OPERATE]])
def test_a_key_of_another_scope_runs_no_task(hosts: Hosts, scopes: list[Scope]) -> None:
    key = create_key(hosts.database, owner="host-a", scopes=scopes, lifetime=None)
    with pytest.raises(PermissionDenied, match="lacks the scope consume"):
        register(hosts.client(key), "a-1")


def test_what_is_neither_the_service_token_nor_a_key_is_told_both(hosts: Hosts) -> None:
    with pytest.raises(InferenceError, match="the service token, or a key with the scope consume") as caught:
        register(hosts.client("not-the-service-token"), "a-1")
    assert type(caught.value) is Unauthenticated


def deploy(hosts: Hosts) -> None:
    with hosts.api.client() as http:
        answer = http.post("/api/models/echo/deployment", json={"port": 8001, "replicas_min": 1})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("stranger", ["another host's key", "the service token"])
def test_nobody_else_speaks_for_a_replica_of_a_key(hosts: Hosts, tmp_path: Path, stranger: str) -> None:
    mine = hosts.of("host-a")
    other = hosts.of("host-b") if "key" in stranger else hosts.client(hosts.api.token)
    register(mine, "a-1")
    deploy(hosts)
    held = claim_waiting_replica(mine, "a-1")
    ready = ReplicaBeat(consumer="a-1", ready=True, address="10.0.0.7:8001")
    end = ReplicaEnd(consumer="a-1", reason=ReplicaReason.SURPLUS)
    calls: list[Callable[[], object]] = [
        lambda: other.claim_replica(ReplicaClaim(consumer="a-1")),
        lambda: other.show_replica(held.uid, held.fence),
        lambda: other.beat_replica(held.uid, held.fence, ready),
        lambda: other.fetch_replica_model(held.uid, held.fence, tmp_path / "x"),
        lambda: other.end_replica(held.uid, held.fence, end),
    ]
    for call in calls:
        with pytest.raises(PermissionDenied, match="the consumer a-1 belongs to the owner host-a"):
            call()
    register(mine, "a-2")
    with pytest.raises(PermissionDenied, match="one of a-1, not of a-2"):
        mine.beat_replica(held.uid, held.fence, ready.model_copy(update={"consumer": "a-2"}))
    assert mine.show_replica(held.uid, held.fence) == held
    assert not mine.beat_replica(held.uid, held.fence, ready).stop
    mine.end_replica(held.uid, held.fence, end)


def test_a_name_that_goes_to_a_key_takes_no_replica_with_it(hosts: Hosts) -> None:
    token = hosts.client(hosts.api.token)
    register(token, "a-1")
    deploy(hosts)
    held = claim_waiting_replica(token, "a-1")
    hosts.let_be_silent("a-1")
    mine = hosts.of("host-a")
    register(mine, "a-1")
    with hosts.api.client() as http:
        replicas = http.get("/api/models/echo/deployment").json()["replicas"]
    lost = next(replica for replica in replicas if replica["uid"] == held.uid)
    assert (lost["status"], lost["reason"]) == ("ended", "lost")
    with pytest.raises(StaleFence):
        mine.show_replica(held.uid, held.fence)


def test_a_hosts_key_is_no_gateways(hosts: Hosts) -> None:
    async def ask() -> None:
        gateway = GatewayClient(hosts.api.url, hosts.key("host-a"))
        try:
            with pytest.raises(Unauthenticated):
                await gateway.table(None)
        finally:
            await gateway.close()

    asyncio.run(ask())
