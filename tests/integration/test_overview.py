"""The queue and the consumers: what is shown of them, and to whom, on PostgreSQL and on SQLite."""

from datetime import timedelta

import pytest

from contract.access import ANONYMOUS, Caller, Scope
from contract.errors import Unauthenticated
from contract.overview import ConsumerView, LaneView, QueueView
from contract.schemas import ConsumerRegistration
from contract.statuses import ConsumerStatus, Kind, Phase, WaitsFor
from private_api.placement.consumers import register_consumer
from private_api.placement.fleet import list_consumers
from private_api.placement.queue import read_queue
from private_api.tables import ConsumerRow
from tests.integration.deployment_harness import DeploymentHarness
from tests.integration.task_harness import GPU, Harness

ADA = Caller("ada", frozenset({Scope.SUBMIT}))
BOB = Caller("bob", frozenset({Scope.SUBMIT}))
OPERATOR = Caller("carol", frozenset({Scope.OPERATE}))


def queue(harness: Harness, caller: Caller = OPERATOR, limit: int = 100) -> QueueView:
    return read_queue(harness.database, caller, limit=limit)


def lane(harness: Harness, kind: Kind) -> LaneView:
    (found,) = (each for each in queue(harness, ANONYMOUS).lanes if each.kind is kind)
    return found


def places(view: QueueView) -> list[tuple[str, int | None]]:
    return [(task.uid, task.position) for task in view.tasks]


def consumer(harness: Harness, name: str = "ada", caller: Caller = OPERATOR) -> ConsumerView:
    (found,) = (each for each in list_consumers(harness.database, caller, limit=500, after=None) if each.name == name)
    return found


def register(harness: Harness, name: str, *, owner: str | None = None, cpu: bool = True, **known: str | None) -> None:
    request = ConsumerRegistration(
        consumer=name, accepts_cpu_tasks=cpu, gpu_uuid=known.get("gpu"), host=known.get("host")
    )
    register_consumer(harness.database, request, owner=owner)


def silence(harness: Harness, name: str) -> None:
    with harness.database.write() as session:
        session.get_one(ConsumerRow, name).seen_at -= timedelta(minutes=5)


def test_the_queue_counts_for_everybody_and_shows_each_its_own_place(harness: Harness) -> None:
    harness.register("big", use_gpu=True)
    held = harness.claim(uid=harness.submit(caller=ADA))
    first, second = harness.submit(caller=BOB), harness.submit(caller=ADA)
    urgent, open_task = harness.submit(caller=BOB, priority=1), harness.submit()
    big = harness.submit("big", caller=ADA)

    assert places(queue(harness, ANONYMOUS)) == []
    assert places(queue(harness, ADA)) == [(held.uid, None), (big, 0), (second, 2)]
    assert places(queue(harness, BOB)) == [(urgent, 0), (first, 1)]
    in_order = [(held.uid, None), (big, 0), (urgent, 0), (first, 1), (second, 2), (open_task, 3)]
    assert places(queue(harness)) == in_order
    assert places(queue(harness, limit=2)) == in_order[:3]
    assert [task.owner for task in queue(harness).tasks] == ["ada", "ada", "bob", "bob", "ada", None]
    assert queue(harness).tasks[0].consumer == "ada"

    cpu, gpu = lane(harness, Kind.CPU), lane(harness, Kind.GPU)
    assert (cpu.queued, cpu.held, cpu.consumers, cpu.free) == (4, 1, 1, 0)
    assert (gpu.queued, gpu.held, gpu.consumers, gpu.free) == (1, 0, 0, 0)
    assert (cpu.waits_for, gpu.waits_for) == (WaitsFor.FREE_CONSUMER, WaitsFor.CONSUMER)
    assert cpu.oldest_queued_at == harness.row(first).created_at


def test_an_empty_queue_waits_for_nothing(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.beat(held)
    harness.commit(held)
    view = queue(harness)
    assert view.tasks == []
    assert [(each.queued, each.held, each.waits_for, each.oldest_queued_at) for each in view.lanes] == [
        (0, 0, None, None)
    ] * 2
    assert lane(harness, Kind.CPU).free == 1


def test_consumers_say_what_they_take_run_and_why_they_take_nothing(harness: Harness) -> None:
    register(harness, "idle", gpu=GPU, cpu=False, owner="host-b")
    register(harness, "gone")
    silence(harness, "gone")
    held = harness.claim(uid=harness.submit(caller=ADA))
    harness.beat(held, Phase.RUNNING)

    idle = consumer(harness, "idle")
    assert (idle.kinds, idle.gpu_uuid, idle.owner) == ([Kind.GPU], GPU, "host-b")
    assert (idle.status, idle.detail) == (ConsumerStatus.FREE, "no task of its kind waits")
    harness.register("big", use_gpu=True)
    harness.submit("big")
    assert (consumer(harness, "idle").status, consumer(harness, "idle").detail) == (ConsumerStatus.FREE, None)

    gone = consumer(harness, "gone")
    assert (gone.status, gone.kinds) == (ConsumerStatus.SILENT, [Kind.CPU])
    assert "not heard from since" in (gone.detail or "")

    busy = consumer(harness)
    assert busy.status is ConsumerStatus.BUSY
    assert busy.task is not None
    assert (busy.task.uid, busy.task.owner, busy.task.phase) == (held.uid, "ada", Phase.RUNNING)
    names = [each.name for each in list_consumers(harness.database, OPERATOR, limit=2, after=None)]
    names += [each.name for each in list_consumers(harness.database, OPERATOR, limit=2, after=names[-1])]
    assert names == ["ada", "gone", "idle"]


def test_a_host_that_was_said_once_is_kept_until_another_is_said(harness: Harness) -> None:
    register(harness, "ada")
    assert consumer(harness).host is None
    for said, known in (("node-1", "node-1"), (None, "node-1"), ("node-2", "node-2")):
        register(harness, "ada", host=said)
        assert consumer(harness).host == known


def test_others_tasks_and_owners_of_consumers_are_for_operators(harness: Harness) -> None:
    register(harness, "theirs", gpu=GPU, owner="host-b")
    harness.claim(uid=harness.submit(caller=ADA))
    assert consumer(harness, caller=ADA).task is not None
    assert consumer(harness, caller=BOB).task is None
    assert consumer(harness, caller=BOB).status is ConsumerStatus.BUSY
    assert consumer(harness, "theirs", caller=BOB).owner is None
    with pytest.raises(Unauthenticated):
        list_consumers(harness.database, ANONYMOUS, limit=5, after=None)
    # The uid of a task without an owner opens it.
    harness.claim("eve", uid=harness.submit())
    assert consumer(harness, "eve", caller=BOB).task is None
    assert consumer(harness, "eve").task is not None


def test_a_consumer_whose_gpu_is_held_names_the_model(plane: DeploymentHarness) -> None:
    plane.start("warm", use_gpu=True)
    harness = plane.tasks
    held = consumer(harness)
    assert held.status is ConsumerStatus.HELD
    assert "(warm): it takes only their tasks and tasks without a GPU" in (held.detail or "")
    assert [(each.human_readable_id, each.status, each.use_gpu) for each in held.replicas] == [("warm", "ready", True)]
    # Tasks without a GPU run beside it.
    assert (lane(harness, Kind.GPU).free, lane(harness, Kind.CPU).free) == (0, 1)


def test_a_consumer_whose_free_gpu_is_meant_for_a_replica_says_so(plane: DeploymentHarness) -> None:
    harness = plane.tasks
    register(harness, "ada", gpu=GPU, cpu=False)
    for name in ("warm", "big"):
        harness.register(name, use_gpu=True)
    plane.deploy("warm", replicas_min=1, priority=0)
    plane.scale()
    harness.submit("big")
    assert "a model that is kept warm" in (consumer(harness).detail or "")
