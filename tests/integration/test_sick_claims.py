"""Claims of a sick consumer, and of one without room: what they get, and what is shown of them."""

from datetime import timedelta

from contract.access import Caller, Scope
from contract.claims import ClaimRequest
from contract.consumer_health import ConsumerHealth
from contract.overview import ConsumerView
from contract.schemas import Assignment
from contract.statuses import ConsumerStatus, WaitsFor
from private_api.placement.fleet import show_consumer
from private_api.placement.outlook import show_task
from private_api.placement.task_claim import claim_task
from private_api.settings import YIELD_AFTER
from tests.integration.deployment_harness import DeploymentHarness
from tests.integration.task_harness import GPU, SIZES, Harness

OPERATOR = Caller("carol", frozenset({Scope.OPERATE}))
SICK = ConsumerHealth(trouble="its work folder /work has 3 MiB free", free_bytes=0)


def claim(harness: Harness, health: ConsumerHealth, *, uid: str | None = None, name: str = "ada") -> Assignment | None:
    request = ClaimRequest(consumer=name, uid=uid, health=health)
    return claim_task(harness.database, request, SIZES, YIELD_AFTER, owner=None)


def consumer(harness: Harness, caller: Caller = OPERATOR) -> ConsumerView:
    return show_consumer(harness.database, caller, "ada")


def test_a_sick_consumer_gets_nothing_until_it_is_well(harness: Harness) -> None:
    uid = harness.submit()
    assert claim(harness, SICK, uid=uid) is None
    assert (consumer(harness).status, consumer(harness).detail) == (ConsumerStatus.SICK, SICK.trouble)
    # What failed there may have been anybody's.
    detail = consumer(harness, Caller("bob", frozenset({Scope.SUBMIT}))).detail
    assert detail == "it cannot run tasks now; its operator sees why"
    view = show_task(harness.database, harness.logs, uid, OPERATOR)
    assert view.waits_for is WaitsFor.REPAIR
    assert view.wait_detail == (
        "the only consumer for tasks without a GPU is sick and takes nothing; `infer consumers` tells its operator why"
    )
    held = claim(harness, ConsumerHealth())
    assert held is not None
    assert (held.uid, consumer(harness).status) == (uid, ConsumerStatus.BUSY)


def test_a_bell_that_a_sick_consumer_hears_is_rung_again_for_a_well_one(harness: Harness) -> None:
    uid = harness.submit()
    bells = harness.bells()
    claim(harness, SICK, uid=uid)
    assert harness.bells() == bells
    # One that says nothing of itself, as before this could be said, counts as well.
    harness.try_claim("bob", cpu=False, gpu=GPU)
    claim(harness, SICK, uid=uid)
    assert harness.bells() == bells
    held = harness.submit_and_claim("cleo")
    harness.fail(held)
    bells = harness.bells()
    claim(harness, SICK, uid=uid)
    assert harness.bells() == bells + 1


def test_a_consumer_gets_only_inputs_that_fit_on_its_disk(harness: Harness) -> None:
    large = harness.submit(priority=5)
    size = harness.rows()[1][large].input.size_bytes
    small_room, room = ConsumerHealth(free_bytes=2 * size - 1), ConsumerHealth(free_bytes=2 * size)
    assert claim(harness, small_room, uid=large) is None
    view = show_task(harness.database, harness.logs, large, OPERATOR)
    assert view.waits_for is WaitsFor.REPAIR
    assert "none that takes tasks has more than" in (view.wait_detail or "")
    assert consumer(harness).status is ConsumerStatus.FREE
    small = harness.submit(files={"a": b""})
    for uid in (large, small, None):
        held = claim(harness, small_room, uid=uid)
        assert held is not None
        assert held.uid == small
        harness.release(held, blameless=True)
    held = claim(harness, room, uid=small)
    assert held is not None
    assert held.uid == large
    assert claim(harness, ConsumerHealth(), name="bob") is not None


def test_a_sick_consumer_hosts_no_replica(plane: DeploymentHarness) -> None:
    plane.register("echo")
    plane.deploy("echo", replicas_min=1)
    plane.scale()
    claim(plane.tasks, SICK)
    assert plane.try_claim() is None
    (wanted,) = plane.live()
    plane.shift_replica(wanted.uid, created_at=-timedelta(minutes=1))
    plane.scale()
    assert plane.row(wanted.uid).detail == "every consumer that hosts replicas without a GPU is sick or draining"
    claim(plane.tasks, ConsumerHealth())
    assert plane.claim().uid == wanted.uid
