"""Replicas of one deployment on many consumers: who leaves a waiting one to whom. On PostgreSQL and SQLite."""

from datetime import timedelta

import pytest

from private_api.placement import occupancy
from tests.integration.deployment_harness import DeploymentHarness
from tests.integration.task_harness import GPU

OTHER_GPU = GPU[:-1] + "f"
LEFT_TO_OTHERS_FOR = timedelta(seconds=50)
"""Longer than a machine that is busy with other things stands still between two steps; shorter than a lease."""


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occupancy, "LEFT_TO_OTHERS_FOR", LEFT_TO_OTHERS_FOR)


def want(plane: DeploymentHarness, count: int, name: str = "echo", *, use_gpu: bool = False, **serving: object) -> None:
    plane.register(name, use_gpu=use_gpu)
    plane.deploy(name, replicas_min=count, replicas_max=count, **serving)
    plane.scale()


def test_the_second_replica_goes_to_the_consumer_that_hosts_none(plane: DeploymentHarness) -> None:
    plane.try_claim("bea")
    want(plane, 2)
    plane.claim("ada")
    bell = next(replica.uid for replica in plane.live() if replica.status == "wanted")
    assert plane.try_claim("ada", uid=bell) is None
    assert plane.try_claim("bea") is not None
    assert {replica.consumer for replica in plane.live()} == {"ada", "bea"}


def test_who_hosts_as_many_as_the_others_takes_the_next_one(plane: DeploymentHarness) -> None:
    plane.try_claim("bea")
    want(plane, 4)
    for consumer in ("ada", "bea", "ada"):
        plane.claim(consumer)
    assert plane.try_claim("ada") is None
    plane.claim("bea")


def test_a_replica_that_nobody_else_took_in_time_is_hosted_all_the_same(plane: DeploymentHarness) -> None:
    plane.try_claim("bea")
    want(plane, 2)
    plane.claim("ada")
    want(plane, 1, "other")
    assert plane.claim("ada").human_readable_id == "other"
    assert plane.try_claim("ada") is None
    (waiting,) = (replica.uid for replica in plane.live() if replica.status == "wanted")
    plane.shift_replica(waiting, created_at=-LEFT_TO_OTHERS_FOR)
    assert plane.claim("ada").uid == waiting


@pytest.mark.parametrize(
    "other", [{"slots": 0}, {"slots": 1}, {"gpu": GPU, "cpu": False}], ids=["hosts none", "is full", "is for GPUs"]
)
def test_a_consumer_without_room_is_not_waited_for(plane: DeploymentHarness, other: dict[str, object]) -> None:
    if other == {"slots": 1}:
        plane.register("full")
        plane.deploy("full", replicas_min=1)
        plane.scale()
    plane.try_claim("bea", **other)  # type: ignore[arg-type]
    want(plane, 2)
    plane.claim("ada")
    plane.claim("ada")


def test_a_consumer_that_went_silent_is_not_waited_for(plane: DeploymentHarness) -> None:
    plane.try_claim("bea")
    plane.age(LEFT_TO_OTHERS_FOR + timedelta(seconds=1))
    want(plane, 2)
    plane.claim("ada")
    plane.claim("ada")


def test_a_replica_that_leaves_does_not_count(plane: DeploymentHarness) -> None:
    plane.try_claim("bea")
    want(plane, 1)
    plane.beat(plane.claim("ada"))
    # Of another version: the old one leaves once a new one is ready.
    plane.register(replace=True)
    plane.deploy(replicas_min=1)
    plane.scale()
    plane.beat(plane.claim("bea"), consumer="bea")
    plane.scale()
    assert sorted(plane.statuses()) == ["draining", "ready"]
    plane.deploy(replicas_min=2, replicas_max=2)
    plane.scale()
    assert plane.try_claim("bea") is None
    plane.claim("ada")


def test_replicas_that_share_a_gpu_spread_over_gpus_that_admit_them(plane: DeploymentHarness) -> None:
    plane.try_claim("bea", gpu=OTHER_GPU)
    want(plane, 3, use_gpu=True, share_gpu=True)
    plane.claim("ada", gpu=GPU)
    assert plane.try_claim("ada", gpu=GPU) is None
    plane.claim("bea", gpu=OTHER_GPU)
    plane.claim("ada", gpu=GPU)


def test_a_gpu_that_something_else_is_on_is_not_waited_for(plane: DeploymentHarness) -> None:
    want(plane, 1, "alone", use_gpu=True)
    plane.claim("bea", gpu=OTHER_GPU)
    want(plane, 2, use_gpu=True, share_gpu=True)
    plane.claim("ada", gpu=GPU)
    plane.claim("ada", gpu=GPU)
