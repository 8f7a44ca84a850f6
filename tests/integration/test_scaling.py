"""Deployments follow what gateways report. On PostgreSQL and SQLite."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from contract.deployments import DeploymentStatus, ReplicaReason
from contract.errors import DeploymentNotFound
from contract.statuses import Phase
from private_api.deployment_tables import DeploymentRow
from private_api.deployments.rows import lock_deployment
from private_api.loops.scaler import Scaler
from private_api.settings import YIELD_AFTER
from tests.integration.deployment_harness import DeploymentHarness

SECOND = timedelta(seconds=1)


def deploy(plane: DeploymentHarness, count: int = 0, **serving: int) -> list[str]:
    """A deployment with so many ready replicas; their uids."""
    plane.register()
    plane.deploy(**{"replicas_max": 4, "target_in_flight": 2, "idle_timeout_s": 60, **serving})
    if count:
        plane.report(in_flight=2 * count)
    plane.scale()
    uids = []
    for _ in range(count):
        held = plane.claim(slots=99)
        plane.beat(held)
        uids.append(held.uid)
    return uids


def test_the_first_call_starts_a_replica(plane: DeploymentHarness) -> None:
    deploy(plane)
    assert plane.statuses() == []
    with pytest.raises(DeploymentNotFound):
        plane.demand("nobody")
    plane.demand()
    assert plane.scale()
    assert plane.statuses() == ["wanted"]
    assert plane.show().status == DeploymentStatus.STARTING
    plane.demand()
    assert not plane.scale()
    assert plane.statuses() == ["wanted"]


def test_calls_that_wait_count_like_calls_that_are_open(plane: DeploymentHarness) -> None:
    deploy(plane)
    plane.report(queued=3)
    plane.scale()
    assert plane.statuses() == ["wanted", "wanted"]


def test_load_of_all_gateways_adds_up_and_a_silent_one_counts_for_nothing(plane: DeploymentHarness) -> None:
    deploy(plane)
    plane.report(in_flight=2, gateway="g1")
    plane.report(in_flight=2, gateway="g2")
    plane.scale()
    assert len(plane.live()) == 2
    plane.age(6 * SECOND)
    plane.report(in_flight=1, gateway="g3")
    plane.scale()
    assert len(plane.live()) == 2, "not fewer before the idle timeout"
    plane.shift_deployment(wanted_at=-61 * SECOND)
    plane.report(in_flight=1, gateway="g3")
    plane.scale()
    assert len(plane.live()) == 1


def test_never_more_than_the_maximum_nor_fewer_than_the_minimum(plane: DeploymentHarness) -> None:
    deploy(plane, replicas_min=1, replicas_max=2)
    assert len(plane.live()) == 1
    plane.report(in_flight=100)
    plane.scale()
    assert len(plane.live()) == 2
    plane.shift_deployment(wanted_at=timedelta(hours=-1), called_at=timedelta(hours=-1))
    plane.report()
    plane.scale()
    assert len(plane.live()) == 1


def test_replicas_with_the_fewest_calls_leave_first(plane: DeploymentHarness) -> None:
    busy, idle, busier = deploy(plane, 3)
    plane.shift_deployment(wanted_at=timedelta(hours=-1))
    plane.report(in_flight=3, replicas={busy: 1, idle: 0, busier: 2})
    plane.scale()
    assert {uid: plane.row(uid).status for uid in (busy, idle, busier)} == {
        busy: "ready",
        idle: "draining",
        busier: "ready",
    }
    assert plane.row(idle).reason == ReplicaReason.SURPLUS


def test_what_has_not_started_leaves_before_what_is_ready(plane: DeploymentHarness) -> None:
    (ready,) = deploy(plane, 1)
    plane.report(in_flight=6, replicas={ready: 2})
    plane.scale()
    starting = plane.claim().uid
    assert plane.statuses() == ["ready", "starting", "wanted"]
    plane.shift_deployment(wanted_at=timedelta(hours=-1))
    plane.report(in_flight=2, replicas={ready: 2})
    plane.scale()
    assert plane.statuses() == ["ready", "draining"]
    assert plane.row(starting).status == "draining"


def test_the_last_replica_leaves_an_idle_timeout_after_the_last_call(plane: DeploymentHarness) -> None:
    (uid,) = deploy(plane, 1)
    plane.age(30 * SECOND)
    plane.report(idle_s=1, replicas={uid: 0})
    plane.scale()
    plane.age(50 * SECOND)
    plane.report(idle_s=51, replicas={uid: 0})
    plane.scale()
    assert plane.statuses() == ["ready"]
    plane.age(15 * SECOND)
    plane.report(idle_s=66, replicas={uid: 0})
    plane.scale()
    assert plane.statuses() == ["draining"]


def test_a_gateway_that_starts_again_does_not_forget_the_last_call(plane: DeploymentHarness) -> None:
    (uid,) = deploy(plane, 1)
    plane.age(30 * SECOND)
    plane.report(idle_s=None, replicas={uid: 0}, gateway="new")
    plane.scale()
    assert plane.statuses() == ["ready"]
    assert plane.deployment().called_at is not None


def test_a_task_that_runs_through_a_replica_keeps_it(plane: DeploymentHarness) -> None:
    plane.start(serves_tasks=True)
    plane.deploy(serves_tasks=True, idle_timeout_s=1)
    task = plane.tasks.claim(uid=plane.tasks.submit())
    assert task.replica_uid is not None
    plane.tasks.beat(task, Phase.RUNNING)
    plane.shift_deployment(wanted_at=timedelta(hours=-1))
    plane.scale()
    assert plane.statuses() == ["ready"]
    plane.tasks.commit(task)
    plane.shift_deployment(wanted_at=timedelta(hours=-1))
    plane.scale()
    assert plane.statuses() == ["draining"]


def test_while_nobody_could_report_nothing_is_scaled_down(plane: DeploymentHarness) -> None:
    deploy(plane, 2)
    plane.tasks.reap()
    plane.age(timedelta(minutes=10))
    plane.tasks.set_reaper(timedelta(minutes=10))
    plane.scale()
    assert len(plane.live()) == 2
    plane.tasks.reap()
    plane.scale()
    assert plane.statuses() == ["ready", "ready"]


def test_two_scalers_at_once_start_one_replica(plane: DeploymentHarness) -> None:
    for name in ("a", "b", "c"):
        plane.register(name)
        plane.deploy(name, replicas_min=1)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: plane.scale(), range(12)))
    assert [plane.statuses(name) for name in ("a", "b", "c")] == [["wanted"]] * 3


def test_a_deployment_that_another_scaler_decides_about_is_skipped(plane: DeploymentHarness) -> None:
    if plane.tasks.database.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    plane.register()
    plane.deploy(replicas_min=1)
    deployment: DeploymentRow = plane.deployment()
    with plane.tasks.database.write() as session:
        lock_deployment(session, deployment.id)
        assert not plane.scale()
    assert plane.scale()


def test_one_deployment_that_cannot_be_scaled_stops_no_other(
    plane: DeploymentHarness, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        plane.register(name)
        plane.deploy(name, replicas_min=1)
    with plane.tasks.database.write() as session:
        session.connection().exec_driver_sql("UPDATE deployments SET serving = '{}' WHERE application = 'a'")
    plane.scale()
    assert plane.statuses("b") == ["wanted"]
    assert "could not be scaled" in caplog.text


def test_who_waits_is_told_of_changes_alone(plane: DeploymentHarness) -> None:
    plane.register()
    plane.deploy(replicas_min=1)
    told: list[bool] = []
    scaler = Scaler(plane.tasks.database, yield_after=YIELD_AFTER, on_change=lambda: told.append(True))
    for _ in range(3):
        scaler.step()
    assert len(told) == 1


@pytest.mark.parametrize(
    ("gpu", "consumer_gpu", "text"),
    [
        (True, None, "no consumer that hosts replicas with a GPU is there"),
        (False, None, None),
    ],
)
def test_a_replica_that_nobody_takes_says_what_it_waits_for(
    plane: DeploymentHarness, gpu: bool, consumer_gpu: str | None, text: str | None
) -> None:
    plane.register(use_gpu=gpu)
    plane.deploy(replicas_min=1)
    plane.try_claim("ada", gpu=consumer_gpu)
    plane.scale()
    (waiting,) = plane.live()
    assert waiting.detail is None
    plane.shift_replica(waiting.uid, created_at=-10 * SECOND)
    plane.scale()
    assert (plane.show().detail, plane.live()[0].detail) == (text, text)


def test_a_replica_says_that_every_consumer_is_full(plane: DeploymentHarness) -> None:
    plane.start()
    plane.try_claim("ada", slots=1)
    plane.deploy(replicas_min=2, replicas_max=2)
    plane.scale()
    waiting = plane.live()[1]
    plane.shift_replica(waiting.uid, created_at=-10 * SECOND)
    plane.scale()
    assert plane.live()[1].detail == "waits for a consumer with room for another replica"
    plane.claim("bea")
    assert plane.live()[1].detail is None
