"""Consumers that drain: what they still get, what is shown of them, and where their replicas go."""

from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from contract.access import Caller, Scope
from contract.claims import ClaimRequest
from contract.deployments import ReplicaStatus
from contract.errors import ConsumerNotFound, TaskPending
from contract.overview import ConsumerView
from contract.schemas import ConsumerRegistration
from contract.statuses import ConsumerStatus, Kind, WaitsFor
from private_api.database import Database
from private_api.keys import create_key
from private_api.placement.consumers import register_consumer, set_draining
from private_api.placement.fleet import show_consumer
from private_api.placement.outlook import find_output, show_task
from private_api.placement.queue import read_queue
from private_api.tables import ConsumerRow
from tests.integration.deployment_harness import DeploymentHarness
from tests.integration.public_door import PLAIN, serve_door
from tests.integration.task_harness import GPU, Harness
from tests.running_api import run_private_api

OPERATOR = Caller("carol", frozenset({Scope.OPERATE}))
OTHER_GPU = GPU.replace("1", "2")


def drain(harness: Harness, name: str = "ada") -> None:
    set_draining(harness.database, name, is_draining=True)


def resume(harness: Harness, name: str = "ada") -> None:
    set_draining(harness.database, name, is_draining=False)


def consumer(harness: Harness, name: str = "ada") -> ConsumerView:
    return show_consumer(harness.database, OPERATOR, name)


def test_a_draining_consumer_finishes_its_task_and_gets_no_other(harness: Harness) -> None:
    held = harness.submit_and_claim()
    waiting = harness.submit()
    drain(harness)
    since = consumer(harness).draining_at
    assert (consumer(harness).status, since is None) == (ConsumerStatus.DRAINING, False)
    assert "it finishes its task" in (consumer(harness).detail or "")
    drain(harness)
    assert consumer(harness).draining_at == since
    harness.beat(held)
    harness.commit(held)
    assert harness.row(held.uid).status == "finished"
    assert "it has nothing left, so its host may go down" in (consumer(harness).detail or "")
    for uid in (None, waiting):
        assert harness.try_claim(uid=uid) is None
    # Its restart changes nothing.
    register_consumer(harness.database, ConsumerRegistration(consumer="ada"), owner=None)
    assert harness.try_claim() is None
    assert harness.claim("bob").uid == waiting
    resume(harness)
    resume(harness)
    assert (consumer(harness).status, consumer(harness).draining_at) == (ConsumerStatus.FREE, None)
    assert harness.claim(uid=(last := harness.submit())).uid == last


def test_a_task_says_that_every_consumer_of_its_kind_drains(harness: Harness) -> None:
    harness.register("big", use_gpu=True)
    harness.try_claim("ada")
    harness.try_claim("gpu", gpu=GPU, cpu=False)
    on_cpu, on_gpu = harness.submit(), harness.submit("big")
    drain(harness, "gpu")
    view = show_task(harness.database, harness.logs, on_gpu, OPERATOR)
    assert (view.waits_for, view.eta) == (WaitsFor.RESUME, None)
    draining = "the only consumer with a GPU is draining"
    assert view.wait_detail == f"{draining}: nothing new is taken until an operator resumes one with `infer resume`"
    assert show_task(harness.database, harness.logs, on_cpu, OPERATOR).waits_for is WaitsFor.TURN
    with pytest.raises(TaskPending, match="the only consumer with a GPU is draining"):
        find_output(harness.database, harness.store, harness.logs, on_gpu, OPERATOR)
    lanes = {lane.kind: lane for lane in read_queue(harness.database, OPERATOR, limit=1).lanes}
    assert (lanes[Kind.GPU].consumers, lanes[Kind.GPU].free, lanes[Kind.GPU].waits_for) == (1, 0, WaitsFor.RESUME)
    assert (lanes[Kind.CPU].consumers, lanes[Kind.CPU].free) == (1, 1)
    # One that does not drain counts, busy or not.
    harness.try_claim("gpu-2", gpu=OTHER_GPU, cpu=False)
    assert harness.row(on_gpu).status == "leased"
    second = harness.submit("big")
    view = show_task(harness.database, harness.logs, second, OPERATOR)
    assert (view.waits_for, view.wait_detail) == (WaitsFor.FREE_CONSUMER, "the only consumer with a GPU is busy")


def test_a_bell_that_a_draining_consumer_hears_is_rung_again_for_a_free_one(harness: Harness) -> None:
    harness.try_claim("ada")
    drain(harness)
    uid = harness.submit()
    assert harness.bells() == 1
    # Nobody else is there to hear it.
    harness.try_claim(uid=uid)
    assert harness.bells() == 1
    harness.try_claim("bob", cpu=False, gpu=GPU)
    harness.try_claim(uid=uid)
    assert harness.bells() == 1
    held = harness.submit_and_claim("cleo")
    bells = harness.bells()
    harness.try_claim(uid=uid)
    assert harness.bells() == bells
    harness.fail(held)
    harness.try_claim(uid=uid)
    harness.try_claim(uid="0" * 64)
    assert harness.bells() == bells + 1


def test_a_silent_consumer_is_silent_and_says_that_it_drains(harness: Harness) -> None:
    harness.try_claim()
    drain(harness)
    with harness.database.write() as session:
        session.get_one(ConsumerRow, "ada").seen_at -= timedelta(minutes=5)
    assert consumer(harness).status is ConsumerStatus.SILENT
    assert "it is draining and takes nothing when it is back, until `infer resume ada`" in (
        consumer(harness).detail or ""
    )


def test_a_consumer_that_nobody_knows_cannot_drain(harness: Harness) -> None:
    for order in (drain, resume):
        with pytest.raises(ConsumerNotFound, match="'nobody'"):
            order(harness, "nobody")


def test_a_replica_moves_before_it_ends(plane: DeploymentHarness) -> None:
    old = plane.start("echo")
    drain(plane.tasks)
    assert plane.scale()
    assert plane.statuses() == ["ready", "wanted"]
    assert plane.try_claim() is None
    new = plane.claim("bob")
    plane.scale()
    assert plane.statuses() == ["ready", "starting"]
    plane.beat(new, consumer="bob")
    plane.scale()
    assert [(each.uid, each.status) for each in plane.live()] == [
        (old, ReplicaStatus.DRAINING),
        (new.uid, ReplicaStatus.READY),
    ]
    assert "it finishes its replicas" in (consumer(plane.tasks).detail or "")
    assert plane.beat_uid(old).stop
    plane.end_uid(old)
    assert "it has nothing left" in (consumer(plane.tasks).detail or "")
    # The one that took its place stays where it is.
    resume(plane.tasks)
    plane.scale()
    assert [each.uid for each in plane.live()] == [new.uid]


def test_a_replica_that_fits_nowhere_else_ends_all_the_same(plane: DeploymentHarness) -> None:
    old = plane.start("echo", use_gpu=True)
    drain(plane.tasks)
    plane.scale()
    (wanted,) = (each.uid for each in plane.live() if each.uid != old)
    plane.shift_replica(wanted, created_at=-timedelta(minutes=1))
    plane.scale()
    assert plane.row(wanted).detail == "every consumer that hosts replicas with a GPU is draining"
    plane.scale()
    assert plane.row(old).status is ReplicaStatus.DRAINING
    plane.end_uid(old)
    resume(plane.tasks)
    plane.scale()
    assert plane.claim("ada", gpu=GPU).uid == wanted


def test_no_replica_is_evicted_for_a_gpu_that_nothing_may_use(plane: DeploymentHarness) -> None:
    plane.start("warm", use_gpu=True)
    plane.register("big", use_gpu=True)
    plane.tasks.submit("big", priority=5)
    plane.age(timedelta(hours=1))
    for uid in [each.uid for each in plane.live("warm")]:
        plane.beat_uid(uid)
    drain(plane.tasks)
    plane.scale()
    assert plane.live("warm")[0].status is ReplicaStatus.READY


def test_draining_outlives_the_server_and_is_for_operators(sqlite_url: str, tmp_path: Path) -> None:
    claim = ClaimRequest(consumer="host/a b", accepts_cpu_tasks=True)
    with run_private_api(sqlite_url, tmp_path) as api, serve_door(api.url) as url:
        database = Database(sqlite_url)
        key = create_key(database, owner="carol", scopes=[Scope.OPERATE], lifetime=None)
        weak = create_key(database, owner="ada", scopes=[Scope.SUBMIT], lifetime=None)
        database.close()
        with api.consumer() as private:
            private.claim(claim)
        with httpx.Client(base_url=url, **PLAIN) as http:
            path = "/api/consumers/host%2Fa%20b"
            assert http.post(f"{path}/drain", headers={"X-API-Key": weak}).status_code == 403
            assert http.post(f"{path}/drain").status_code == 403
            answer = http.post(f"{path}/drain", headers={"X-API-Key": key})
            assert (answer.status_code, answer.json()["status"]) == (200, "draining")
            for name in ("other", "..%2Fmodels", "a%2F%2Fb"):
                answer = http.post(f"/api/consumers/{name}/drain", headers={"X-API-Key": key})
                assert (answer.status_code, answer.json()["error"]) == (404, "ConsumerNotFound")
    with (
        run_private_api(sqlite_url, tmp_path) as api,
        serve_door(api.url) as url,
        httpx.Client(base_url=url, headers={"X-API-Key": key}, **PLAIN) as http,
        api.consumer() as private,
    ):
        assert http.get("/api/consumers/").json()[0]["status"] == "draining"
        assert private.claim(claim) is None
        answer = http.post("/api/consumers/host%2Fa%20b/resume")
        assert (answer.status_code, answer.json()["status"]) == (200, "free")
