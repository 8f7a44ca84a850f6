"""How many of an owner's tasks run at once, and what that means for all others, on PostgreSQL and on SQLite."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

from sqlalchemy import delete, select

from contract.access import ANONYMOUS, Caller, Scope
from contract.statuses import WaitsFor
from private_api.placement.outlook import show_task
from private_api.placement.queue import read_queue
from private_api.quotas.running import note_default
from private_api.tables import OutboxRow
from private_api.tasks.cancel import cancel_task
from tests.integration.deployment_harness import DeploymentHarness
from tests.integration.task_harness import GPU, Harness
from tests.integration.test_quotas import ADA, BOB, limits, own

OTHER_GPU = "GPU-00000000-0000-0000-0000-000000000002"
CROWD = 8


def allow(harness: Harness, running: int | None) -> None:
    """What the private API does at its start."""
    note_default(harness.database, limits(running=running))


def waits(harness: Harness, uid: str) -> tuple[WaitsFor | None, str | None]:
    view = show_task(harness.database, harness.logs, uid, ADA)
    return view.waits_for, view.wait_detail


def bells(harness: Harness) -> list[str]:
    """The uids that were rung since the last look."""
    with harness.database.write() as session:
        rung = list(session.scalars(select(OutboxRow.uid).order_by(OutboxRow.id)))
        session.execute(delete(OutboxRow))
        return rung


def test_an_owner_who_runs_as_many_as_it_may_is_passed_over_until_one_ends(harness: Harness) -> None:
    allow(harness, 2)
    first, _, third = (harness.submit(caller=ADA) for _ in range(3))
    bobs, nobodys = harness.submit(caller=BOB), harness.submit()
    held = harness.claim("c1", uid=first)
    harness.claim("c2")
    # Its bell does not help it either.
    assert harness.claim("c3", uid=third).uid == bobs
    assert harness.claim("c4", uid=third).uid == nobodys
    assert harness.try_claim("c5", uid=third) is None
    bells(harness)
    harness.commit(held)
    assert bells(harness) == [third]
    assert harness.claim("c5", uid=third).uid == third


def test_of_a_crowd_of_consumers_exactly_as_many_get_a_task_as_the_owner_may_run(harness: Harness) -> None:
    allow(harness, 3)
    uids = [harness.submit(caller=ADA) for _ in range(CROWD)]
    theirs = harness.submit(caller=BOB)
    start = Barrier(CROWD)

    def claim(number: int) -> str | None:
        start.wait()
        assignment = harness.try_claim(f"c{number}", uid=uids[number])
        return assignment.uid if assignment else None

    with ThreadPoolExecutor(CROWD) as crowd:
        claimed = [uid for uid in crowd.map(claim, range(CROWD)) if uid]
    assert len(set(claimed) & set(uids)) == 3
    assert [uid for uid in claimed if uid not in uids] == [theirs]


def test_a_task_that_is_held_back_says_so_and_its_priority_holds_up_nobody(harness: Harness) -> None:
    allow(harness, 1)
    held = harness.claim(uid=harness.submit(caller=ADA))
    waiting = harness.submit(caller=ADA, priority=9)
    assert waits(harness, waiting) == (WaitsFor.QUOTA, "one of its owner's own tasks must end first: quota running 1")
    lanes = {lane.kind: lane for lane in read_queue(harness.database, ADA, limit=10).lanes}
    assert lanes["cpu"].waits_for is WaitsFor.QUOTA
    bobs = harness.submit(caller=BOB)
    lanes = {lane.kind: lane for lane in read_queue(harness.database, ADA, limit=10).lanes}
    assert (lanes["cpu"].queued, lanes["cpu"].waits_for) == (2, WaitsFor.FREE_CONSUMER)
    assert harness.claim("bob").uid == bobs
    harness.commit(held)
    assert waits(harness, waiting)[0] is WaitsFor.TURN


def test_a_task_has_the_limit_of_the_key_that_submitted_it(harness: Harness) -> None:
    allow(harness, 2)
    narrow, wide, endless = own(ADA, running=1), own(ADA, running=3), own(ADA, running=None)
    for caller in (narrow, narrow, wide, wide, wide):
        harness.submit(caller=caller)
    # One of each, then the wide one's until three run, whatever the narrow one's.
    assert [harness.row(harness.claim(f"c{n}").uid).running_limit for n in range(3)] == [1, 3, 3]
    assert harness.try_claim("c3") is None
    harness.submit(caller=ADA)
    assert harness.try_claim("c3") is None
    harness.claim("c3", uid=harness.submit(caller=endless))


def test_the_servers_limit_of_its_last_start_holds_for_what_waits_already(harness: Harness) -> None:
    for _ in range(4):
        harness.submit(caller=ADA)
    harness.claim("c1")
    harness.claim("c2")
    allow(harness, 2)
    assert harness.try_claim("c3") is None
    allow(harness, 3)
    harness.claim("c3")
    assert harness.try_claim("c4") is None
    allow(harness, None)
    harness.claim("c4")


def test_a_task_that_is_cancelled_or_fails_makes_room_and_one_that_waits_makes_none(harness: Harness) -> None:
    allow(harness, 1)
    held, waiting, last = harness.claim(uid=harness.submit(caller=ADA)), *(harness.submit(caller=ADA) for _ in "ab")
    bells(harness)
    cancel_task(harness.database, waiting, ADA)
    assert bells(harness) == []
    harness.fail(held)
    assert bells(harness) == [last]
    # Given back, it is the first in the queue again, and takes its own place.
    again = harness.claim(uid=last)
    harness.release(again, blameless=True)
    assert harness.claim("bob").uid == last


def test_the_first_task_that_may_run_now_is_rung_for(harness: Harness) -> None:
    wide, narrow = own(ADA, running=2), own(ADA, running=1)
    held = [harness.claim(f"c{n}", uid=harness.submit(caller=wide)) for n in range(2)]
    still = harness.submit(caller=narrow)
    waiting = harness.submit(caller=wide)
    bells(harness)
    harness.commit(held[0])
    assert bells(harness) == [waiting]
    harness.commit(held[1])
    assert bells(harness) == [still]


def test_without_a_key_there_is_no_limit(harness: Harness) -> None:
    allow(harness, 1)
    for number in range(3):
        harness.submit(caller=ANONYMOUS)
        harness.claim(f"c{number}")


def queue_gpu(plane: DeploymentHarness, caller: Caller = ADA, priority: int = 5) -> str:
    return plane.tasks.submit("big", caller=Caller(caller.owner, caller.scopes | {Scope.OPERATE}), priority=priority)


def test_no_warm_model_leaves_its_gpu_for_a_task_that_is_held_back(plane: DeploymentHarness) -> None:
    harness = plane.tasks
    allow(harness, 1)
    uid = plane.start("warm", use_gpu=True, priority=0)
    plane.register("big", use_gpu=True)
    queue_gpu(plane)
    held = harness.claim("bob", gpu=OTHER_GPU, cpu=False)
    queue_gpu(plane)
    plane.age(timedelta(seconds=30))
    plane.report("warm", replicas={uid: 0})
    plane.beat_uid(uid)
    assert harness.try_claim("ada", gpu=GPU, cpu=False) is None
    harness.beat(held, consumer="bob")
    plane.scale()
    assert plane.row(uid).status == "ready"
    # Of another owner, it is a reason to leave.
    queue_gpu(plane, BOB)
    plane.age(timedelta(seconds=30))
    assert harness.try_claim("ada", gpu=GPU, cpu=False) is None
    plane.report("warm", replicas={uid: 0})
    plane.beat_uid(uid)
    plane.scale()
    assert plane.row(uid).status == "draining"


def test_a_task_that_is_held_back_keeps_no_warm_model_from_a_free_gpu(plane: DeploymentHarness) -> None:
    harness = plane.tasks
    allow(harness, 1)
    plane.register("big", use_gpu=True)
    plane.register("warm", use_gpu=True)
    queue_gpu(plane)
    harness.claim("bob", gpu=OTHER_GPU, cpu=False)
    queue_gpu(plane)
    assert harness.try_claim("ada", gpu=GPU, cpu=False) is None
    plane.deploy("warm", replicas_min=1, priority=0)
    plane.scale()
    assert plane.claim("ada", gpu=GPU)
