"""The life of a replica: who may host it, how it is kept, how it leaves and ends. On PostgreSQL and SQLite."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from contract.broker import CPU_REPLICA_QUEUE, GPU_REPLICA_QUEUE
from contract.broker.memory import InMemoryBroker
from contract.deployments import DeploymentStatus, ReplicaReason
from contract.errors import DeploymentNotFound, InvalidRequest, StaleFence
from contract.tokens import Claims, replica_key, verify_token
from private_api.deployments.gateways import forget_gateway
from private_api.deployments.replicas import replica_archive, show_replica
from private_api.deployments.routing import read_table
from private_api.loops.dispatcher import Dispatcher
from private_api.loops.janitor import Janitor
from tests.integration.deployment_harness import HOSTING, DeploymentHarness
from tests.integration.task_harness import GPU

SECOND = timedelta(seconds=1)


def want(plane: DeploymentHarness, count: int = 1, *, use_gpu: bool = False, owner: str | None = None) -> None:
    plane.register(use_gpu=use_gpu)
    plane.deploy(replicas_min=count, replicas_max=count, owner=owner)
    plane.scale()


def test_a_claim_tells_all_that_a_container_needs(plane: DeploymentHarness) -> None:
    want(plane, owner="ada")
    held = plane.claim()
    assert (held.human_readable_id, held.model_version, held.container_tag, held.fence) == ("echo", 1, "echo:1", 1)
    assert held.serving.port == 8001
    environment = dict(held.environment)
    token = environment.pop("GATEWAY_TOKEN")
    assert verify_token(replica_key(HOSTING.service_token), token) == Claims(held.uid, "ada", None, is_inside=True)
    assert len(bytes.fromhex(environment.pop("STREAM_TOKEN_KEY"))) == 32
    assert environment == {
        "DEPLOYMENT": "echo",
        "REPLICA_UID": held.uid,
        "MODEL_DIR": "/model",
        "GRPC_GATEWAY": HOSTING.gateway_address,
        "REDHARE_MODEL_NAME": "echo",
        "REDHARE_MODEL_VERSION": "1",
        "REDHARE_MODEL_PATH": "/model",
    }
    assert HOSTING.service_token not in str(held)


def test_the_holder_is_shown_its_assignment_again_and_nobody_else(plane: DeploymentHarness) -> None:
    want(plane)
    held = plane.claim()
    assert show_replica(plane.tasks.database, held.uid, held.fence, HOSTING) == held
    with pytest.raises(StaleFence):
        show_replica(plane.tasks.database, held.uid, held.fence + 1, HOSTING)
    # By this a consumer tells another server's replica from one of ours that has ended.
    with pytest.raises(DeploymentNotFound):
        show_replica(plane.tasks.database, "0" * 64, 1, HOSTING)
    with pytest.raises(StaleFence):
        replica_archive(plane.tasks.database, held.uid, held.fence + 1)


@pytest.mark.parametrize("use_gpu", [False, True])
def test_a_bell_rings_for_a_replica_that_waits_and_for_no_other(plane: DeploymentHarness, use_gpu: bool) -> None:
    want(plane, 2, use_gpu=use_gpu)
    claimed = plane.claim(gpu=GPU)
    broker = InMemoryBroker()
    assert Dispatcher(plane.tasks.database, broker).step() == 1
    delivery = broker.receive([GPU_REPLICA_QUEUE if use_gpu else CPU_REPLICA_QUEUE], 0)
    assert delivery is not None
    assert delivery.uid != claimed.uid
    assert Dispatcher(plane.tasks.database, broker).step() == 0


def test_two_claims_at_once_give_one_replica_to_one_consumer(plane: DeploymentHarness) -> None:
    want(plane, 3)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: plane.try_claim(f"c{number}"), range(8)))
    claimed = [held.uid for held in found if held]
    assert len(claimed) == len(set(claimed)) == 3
    assert plane.statuses() == ["starting"] * 3


def test_two_claims_of_one_consumer_at_once_never_put_two_replicas_on_its_gpu(plane: DeploymentHarness) -> None:
    want(plane, 3, use_gpu=True)
    plane.try_claim(gpu=None)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: plane.try_claim(gpu=GPU), range(6)))
    assert sum(held is not None for held in found) == 1


def test_a_consumer_hosts_no_more_than_it_has_slots_for(plane: DeploymentHarness) -> None:
    want(plane, 3)
    assert plane.try_claim(slots=0) is None
    assert plane.try_claim(slots=2)
    assert plane.try_claim(slots=2)
    assert plane.try_claim(slots=2) is None
    assert plane.try_claim("bea", slots=2)


def test_a_consumer_gets_what_it_can_host(plane: DeploymentHarness) -> None:
    want(plane, 1, use_gpu=True)
    plane.register("light")
    plane.deploy("light", replicas_min=1)
    plane.scale()
    assert plane.try_claim(gpu=GPU, cpu=False, slots=0) is None
    light = plane.claim()
    assert light.human_readable_id == "light"
    assert plane.try_claim() is None
    heavy = plane.claim(gpu=GPU, cpu=False)
    assert (heavy.human_readable_id, plane.row(heavy.uid).gpu_uuid) == ("echo", GPU)


def test_a_replica_of_a_higher_priority_goes_first_and_the_bell_decides_among_equals(plane: DeploymentHarness) -> None:
    want(plane, 2)
    first, second = (replica.uid for replica in plane.live())
    plane.register("urgent")
    plane.deploy("urgent", replicas_min=1, priority=5)
    plane.scale()
    assert plane.claim(uid=second).human_readable_id == "urgent"
    assert plane.claim(uid=second).uid == second
    assert plane.claim().uid == first


def test_a_replica_is_ready_once_its_holder_says_so_and_stays_so(plane: DeploymentHarness) -> None:
    want(plane)
    held = plane.claim()
    plane.beat(held, ready=False, address=None)
    assert plane.statuses() == ["starting"]
    with pytest.raises(InvalidRequest, match="address"):
        plane.beat(held, address=None)
    plane.beat(held)
    (ready,) = plane.live()
    assert (ready.status, ready.address, ready.consumer) == ("ready", "10.0.0.7:8001", "ada")
    plane.beat(held, ready=False, address=None)
    assert plane.statuses() == ["ready"]


def test_a_replica_that_is_not_ready_says_what_its_probe_heard(plane: DeploymentHarness) -> None:
    want(plane)
    held = plane.claim()
    plane.beat(held, ready=False, address=None)
    assert plane.show().detail is None
    plane.beat(held, ready=False, address=None, detail="NOT_FOUND: no such model")
    view = plane.show()
    assert (view.status, view.detail) == ("starting", "not ready yet: NOT_FOUND: no such model")
    assert view.replicas[0].detail == view.detail
    # Who waits for it, which may be anybody, hears what is no container's word.
    assert read_table(plane.tasks.database).routes[0].detail == "not ready yet"
    plane.beat(held)
    assert (plane.show().status, plane.show().detail, plane.show().replicas[0].detail) == ("ready", None, None)


def test_a_ready_replica_that_falls_silent_gets_no_calls_until_it_answers_again(plane: DeploymentHarness) -> None:
    want(plane)
    held = plane.claim()
    plane.beat(held)
    plane.report(in_flight=2, replicas={held.uid: 2})
    reply = plane.beat(held, ready=False, address=None, silent=True, detail="DEADLINE_EXCEEDED: Deadline Exceeded")
    assert (reply.stop, reply.in_flight) == (False, 2)
    plane.scale()
    view = plane.show()
    assert (view.status, view.detail) == ("starting", "not ready any more: DEADLINE_EXCEEDED: Deadline Exceeded")
    assert [replica.uid for replica in view.replicas] == [held.uid], "it is not replaced: it may be computing"
    assert read_table(plane.tasks.database).routes[0].backends == []
    plane.report()
    assert plane.beat(held, ready=False, address=None, silent=True).in_flight == 0
    assert plane.beat(held).in_flight is None
    assert (plane.show().status, plane.show().detail) == ("ready", None)
    assert [backend.uid for backend in read_table(plane.tasks.database).routes[0].backends] == [held.uid]


def test_a_silent_replica_that_ends_counts_as_a_failure(plane: DeploymentHarness) -> None:
    want(plane)
    held = plane.claim()
    plane.beat(held)
    plane.beat(held, ready=False, address=None, silent=True)
    plane.end(held, ReplicaReason.NOT_READY, detail="it was ready, and then not", exit_code=None)
    assert (plane.show().status, plane.show().failures) == ("failing", 1)


def test_a_host_that_is_silent_for_a_lease_loses_its_replica_and_another_one_is_wanted(
    plane: DeploymentHarness,
) -> None:
    want(plane)
    held = plane.claim()
    plane.beat(held)
    plane.tasks.reap()
    plane.scale()
    assert plane.statuses() == ["ready"]
    plane.shift_replica(held.uid, lease_until=-61 * SECOND)
    changed = plane.tasks.reap()
    assert held.uid in changed
    row = plane.row(held.uid)
    assert (row.status, row.reason, row.detail) == ("ended", ReplicaReason.LOST, "consumer ada stopped answering")
    with pytest.raises(StaleFence):
        plane.beat(held)
    plane.scale()
    assert plane.statuses() == ["wanted"]
    assert plane.show().failures == 0
    plane.end(held)
    assert plane.row(held.uid).reason == ReplicaReason.LOST


def test_after_an_outage_leases_are_extended_before_any_is_judged(plane: DeploymentHarness) -> None:
    want(plane)
    held = plane.claim()
    plane.tasks.reap()
    plane.tasks.set_reaper(timedelta(minutes=10))
    plane.shift_replica(held.uid, lease_until=timedelta(minutes=-10))
    assert plane.tasks.reap() == []
    assert plane.tasks.reap() == []
    plane.beat(held)


# Leaving.


def drained(plane: DeploymentHarness) -> str:
    """A replica that leaves while a gateway has one call open on it."""
    uid = plane.start(drain_timeout_s=30)
    plane.report(in_flight=1, replicas={uid: 1})
    plane.deploy(replicas_min=0, idle_timeout_s=1, drain_timeout_s=30)
    plane.shift_deployment(wanted_at=timedelta(hours=-1))
    plane.report(replicas={uid: 1})
    plane.scale()
    assert plane.row(uid).status == "draining"
    return uid


def test_a_replica_that_leaves_ends_once_every_gateway_let_it_go(plane: DeploymentHarness) -> None:
    uid = drained(plane)
    plane.report(replicas={uid: 1}, gateway="g1")
    plane.report(replicas={uid: 0}, gateway="g2")
    assert not plane.beat_uid(uid).stop
    plane.report(gateway="g1")
    assert not plane.beat_uid(uid).stop
    plane.report(gateway="g2")
    assert plane.beat_uid(uid).stop


def test_a_report_from_before_it_left_lets_no_replica_go(plane: DeploymentHarness) -> None:
    uid = plane.start()
    plane.report()
    plane.deploy(replicas_min=0, idle_timeout_s=1)
    plane.shift_deployment(wanted_at=timedelta(hours=-1))
    plane.scale()
    assert plane.row(uid).status == "draining"
    assert not plane.beat_uid(uid).stop
    plane.report()
    assert plane.beat_uid(uid).stop


def test_a_gateway_that_is_gone_or_silent_holds_no_replica_back(plane: DeploymentHarness) -> None:
    uid = drained(plane)
    assert not plane.beat_uid(uid).stop
    forget_gateway(plane.tasks.database, "g1")
    forget_gateway(plane.tasks.database, "g1")
    assert plane.beat_uid(uid).stop
    plane.report(replicas={uid: 1}, gateway="g2")
    assert not plane.beat_uid(uid).stop
    plane.age(6 * SECOND)
    assert plane.beat_uid(uid).stop


def test_while_nobody_could_report_silence_lets_nothing_go(plane: DeploymentHarness) -> None:
    uid = drained(plane)
    plane.tasks.reap()
    plane.age(6 * SECOND)
    plane.tasks.set_reaper(timedelta(minutes=1))
    assert not plane.beat_uid(uid).stop
    plane.tasks.reap()
    assert not plane.beat_uid(uid).stop


def test_a_replica_that_takes_too_long_to_leave_is_stopped(plane: DeploymentHarness) -> None:
    uid = drained(plane)
    plane.report(replicas={uid: 1})
    assert not plane.beat_uid(uid).stop
    plane.shift_replica(uid, drain_until=-31 * SECOND)
    assert plane.beat_uid(uid).stop


def test_a_replica_that_leaves_keeps_the_reason_for_which_it_left(plane: DeploymentHarness) -> None:
    uid = drained(plane)
    plane.end_uid(uid, ReplicaReason.CONTAINER_ENDED)
    assert plane.row(uid).reason == ReplicaReason.SURPLUS
    assert plane.show().failures == 0


# Failing.


@pytest.mark.parametrize(
    "reason",
    [
        ReplicaReason.CONTAINER_ENDED,
        ReplicaReason.NOT_READY,
        ReplicaReason.IMAGE_NOT_FOUND,
        ReplicaReason.MODEL_REJECTED,
    ],
)
def test_a_replica_that_ends_by_itself_makes_the_next_start_wait(
    plane: DeploymentHarness, reason: ReplicaReason
) -> None:
    want(plane)
    plane.end(plane.claim(), reason, detail="no such file: model.bin", exit_code=3)
    plane.scale()
    view = plane.show()
    assert (view.status, view.failures, plane.live()) == (DeploymentStatus.FAILING, 1, [])
    assert view.detail == f"{reason}, exit code 3: no such file: model.bin"
    assert view.next_start_at is not None
    plane.shift_deployment(not_before=-2 * SECOND)
    plane.scale()
    assert plane.statuses() == ["wanted"]
    assert plane.show().status == DeploymentStatus.FAILING


def test_each_failure_doubles_the_wait_up_to_five_minutes(plane: DeploymentHarness) -> None:
    want(plane)
    waits = []
    for _ in range(11):
        held = plane.claim()
        plane.end(held)
        deployment = plane.deployment()
        ended_at = plane.row(held.uid).ended_at
        assert deployment.not_before is not None
        assert ended_at is not None
        waits.append(round((deployment.not_before - ended_at).total_seconds()))
        plane.shift_deployment(not_before=timedelta(minutes=-6))
        plane.scale()
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_minute_of_being_ready_forgives_earlier_failures(plane: DeploymentHarness) -> None:
    want(plane)
    plane.end(plane.claim())
    plane.shift_deployment(not_before=-2 * SECOND)
    plane.scale()
    held = plane.claim()
    plane.beat(held)
    plane.scale()
    assert (plane.show().failures, plane.show().status) == (1, DeploymentStatus.READY)
    plane.shift_replica(held.uid, ready_at=-61 * SECOND)
    plane.scale()
    view = plane.show()
    assert (view.failures, view.detail, view.next_start_at) == (0, None, None)


def test_deploying_again_forgives_them_too(plane: DeploymentHarness) -> None:
    want(plane)
    plane.end(plane.claim())
    plane.deploy(replicas_min=1)
    plane.scale()
    assert (plane.show().failures, plane.statuses()) == (0, ["wanted"])


@pytest.mark.parametrize("reason", [ReplicaReason.RELEASED, ReplicaReason.LOST, ReplicaReason.SURPLUS])
def test_what_is_not_the_models_fault_is_not_counted(plane: DeploymentHarness, reason: ReplicaReason) -> None:
    want(plane)
    plane.end(plane.claim(), reason)
    assert plane.show().failures == 0
    if reason is ReplicaReason.RELEASED:
        plane.scale()
        assert plane.live() == [], "the same consumer would ask for it again at once"
        plane.shift_deployment(not_before=-3 * SECOND)
    plane.scale()
    assert plane.statuses() == ["wanted"]


def test_an_end_that_is_told_twice_counts_once(plane: DeploymentHarness) -> None:
    want(plane)
    held = plane.claim()
    plane.end(held)
    plane.end(held, ReplicaReason.NOT_READY)
    assert plane.show().failures == 1
    assert plane.row(held.uid).reason == ReplicaReason.CONTAINER_ENDED
    with pytest.raises(StaleFence):
        plane.end(held.model_copy(update={"fence": held.fence + 1}))


# What triggers and checks refuse, whoever writes.


@pytest.mark.parametrize(
    "change",
    [
        "fence = fence - 1",
        "status = 'ready', lease_until = created_at, ended_at = NULL",
        "reason = 'lost'",
        "ended_at = created_at",
    ],
)
def test_an_ended_replica_never_changes(plane: DeploymentHarness, change: str) -> None:
    want(plane)
    held = plane.claim()
    plane.beat(held)
    plane.end(held)
    with pytest.raises(DBAPIError), plane.tasks.database.write() as session:
        session.execute(text(f"UPDATE replicas SET {change}"))  # noqa: S608 - one of the list above


@pytest.mark.parametrize("change", ["lease_until = NULL", "consumer = NULL", "status = 'ended'", "status = 'draining'"])
def test_a_replica_that_contradicts_itself_is_refused(plane: DeploymentHarness, change: str) -> None:
    want(plane)
    plane.beat(plane.claim())
    with pytest.raises(DBAPIError), plane.tasks.database.write() as session:
        session.execute(text(f"UPDATE replicas SET {change}"))  # noqa: S608 - one of the list above


def test_replicas_that_ended_long_ago_are_forgotten(plane: DeploymentHarness) -> None:
    want(plane)
    plane.end(plane.claim())
    tasks = plane.tasks
    for kept_for, count in ((timedelta(days=1), 1), (timedelta(0), 0)):
        Janitor(tasks.database, tasks.store, tasks.logs, keep_finished_for=kept_for).step()
        assert len(plane.show().replicas) == count
