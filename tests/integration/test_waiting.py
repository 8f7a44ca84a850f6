"""What a task waits for, and when it will probably end, on PostgreSQL and on SQLite."""

import os
from datetime import timedelta

from contract.access import ANONYMOUS
from contract.errors import TaskPending
from contract.heartbeats import Heartbeat
from contract.schemas import ConsumerRegistration, TaskView
from contract.statuses import Phase, WaitsFor
from private_api.placement.consumers import register_consumer
from private_api.placement.outlook import find_output, show_task
from private_api.tables import ConsumerRow
from private_api.tasks.attempts import beat_task
from tests.integration.deployment_harness import DeploymentHarness
from tests.integration.task_harness import GPU, Harness

OTHER_GPU = "GPU-00000000-0000-0000-0000-000000000002"
LONG_AGO = timedelta(minutes=5)


def look(harness: Harness, uid: str) -> TaskView:
    return show_task(harness.database, harness.logs, uid, ANONYMOUS)


def told(harness: Harness, uid: str) -> tuple[WaitsFor | None, str]:
    view = look(harness, uid)
    return view.waits_for, view.wait_detail or ""


def silence(harness: Harness, *names: str) -> None:
    with harness.database.write() as session:
        for name in names:
            session.get_one(ConsumerRow, name).seen_at -= LONG_AGO


def show_up(harness: Harness, name: str, *, gpu: str | None = None) -> None:
    assert harness.try_claim(name, gpu=gpu, cpu=gpu is None) is None


def test_a_task_without_a_consumer_of_its_kind_says_so_and_what_to_start(harness: Harness) -> None:
    harness.register("big", use_gpu=True)
    show_up(harness, "ada")
    uid = harness.submit("big")
    word, text = told(harness, uid)
    assert word is WaitsFor.CONSUMER
    assert "no consumer with a GPU is there" in text
    assert "inference-server gpus" in text
    # The customer's own poll says it too, in its sentence and in its members.
    error = poll(harness, uid)
    assert f"the task is queued: {text}" == error.detail
    body = error.to_body()
    assert (body["waits_for"], body["wait_detail"], body["position"]) == ("consumer", text, 0)
    assert "eta" not in body or body["eta"] is None

    silence(harness, "ada")
    word, text = told(harness, harness.submit())
    assert word is WaitsFor.CONSUMER
    assert "COMPOSE_PROFILES=cpu" in text
    assert "the last one was heard from at" in text


def poll(harness: Harness, uid: str) -> TaskPending:
    try:
        find_output(harness.database, harness.store, harness.logs, uid, ANONYMOUS)
    except TaskPending as error:
        return error
    raise AssertionError("the task has an output")


def test_a_task_says_that_every_consumer_is_busy_until_one_is_free(harness: Harness) -> None:
    harness.submit_and_claim("ada")
    waiting = harness.submit()
    assert told(harness, waiting) == (
        WaitsFor.FREE_CONSUMER,
        "the only consumer for tasks without a GPU is busy",
    )
    held = harness.claim("bob", uid=harness.submit(priority=1))
    assert told(harness, waiting)[1] == "all 2 consumers for tasks without a GPU are busy"
    harness.release(held, blameless=True)
    assert told(harness, waiting)[0] is WaitsFor.TURN
    assert poll(harness, waiting).detail == "the task is queued"


def test_a_claimed_task_waits_for_its_preparation_and_one_that_runs_for_nothing(harness: Harness) -> None:
    held = harness.submit_and_claim()
    word, text = told(harness, held.uid)
    assert word is WaitsFor.PREPARATION
    assert "pulled" in text
    harness.beat(held, Phase.PREPARING)
    assert told(harness, held.uid)[0] is WaitsFor.PREPARATION
    for phase in (Phase.RUNNING, Phase.DELIVERING):
        harness.beat(held, phase)
        assert told(harness, held.uid) == (None, "")
    harness.commit(held)
    assert told(harness, held.uid) == (None, "")


def test_a_task_that_pauses_after_a_failure_says_until_when(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.release(held)
    word, text = told(harness, held.uid)
    assert word is WaitsFor.RETRY
    assert f"{harness.row(held.uid).not_before:%H:%M:%S} UTC" in text


def test_a_task_says_that_warm_models_hold_the_gpu_and_who_gives_way(plane: DeploymentHarness) -> None:
    harness = plane.tasks
    harness.register("big", use_gpu=True)
    plane.start("warm", use_gpu=True, priority=0)
    high, low = harness.submit("big", priority=1), harness.submit("big")
    for uid, text in ((high, "leaves for this task by itself"), (low, "infer undeploy warm")):
        word, told_text = told(harness, uid)
        assert word is WaitsFor.HELD_GPU
        assert "(warm)" in told_text
        assert text in told_text
    # A second consumer with a GPU: first free, then busy.
    register_gpu(harness, "bob")
    assert told(harness, low)[0] is WaitsFor.TURN
    harness.claim("bob", gpu=OTHER_GPU)
    assert told(harness, low) == (
        WaitsFor.FREE_CONSUMER,
        "all 2 consumers with a GPU are busy, 1 of them with models that are kept warm",
    )


def register_gpu(harness: Harness, name: str) -> None:
    register_consumer(harness.database, ConsumerRegistration(consumer=name, gpu_uuid=OTHER_GPU), owner=None)


def test_a_warm_model_that_runs_tasks_or_shares_its_gpu_holds_nobody_up(plane: DeploymentHarness) -> None:
    harness = plane.tasks
    plane.start("warm", use_gpu=True, serves_tasks=True)
    assert told(harness, harness.submit("warm"))[0] is WaitsFor.TURN
    harness.register("big", use_gpu=True)
    big = harness.submit("big", priority=-50)
    assert told(harness, big)[0] is WaitsFor.HELD_GPU


def test_a_task_says_that_a_replica_of_its_priority_gets_the_free_gpu(plane: DeploymentHarness) -> None:
    harness = plane.tasks
    harness.register("big", use_gpu=True)
    harness.register("warm", use_gpu=True)
    show_up(harness, "ada", gpu=GPU)
    plane.deploy("warm", replicas_min=1, priority=0)
    plane.scale()
    assert told(harness, harness.submit("big"))[0] is WaitsFor.HELD_GPU
    assert told(harness, harness.submit("big", priority=1))[0] is WaitsFor.TURN


def run(harness: Harness, by: timedelta) -> float:
    """Run a task that takes this long from its claim to its end, most of it before its container starts."""
    held = harness.claim(uid=harness.submit(priority=5))
    harness.shift_claim(held, -by)
    harness.beat(held)
    harness.commit(held)
    return harness.attempt_s(held)


def test_the_eta_is_the_median_from_claim_to_end_times_the_tasks_before(harness: Harness) -> None:
    assert look(harness, harness.submit()).eta is None
    median = [run(harness, timedelta(seconds=by)) for by in (1000, 2000, 60000)][1]
    harness.claim()
    waiting = [harness.submit() for _ in range(3)]
    assert [look(harness, uid).eta for uid in waiting] == [round(median * place, 1) for place in (1, 2, 3)]
    # A second consumer halves the queue.
    held = harness.claim("bob")
    assert [look(harness, uid).eta for uid in waiting[1:]] == [round(median, 1)] * 2
    # The claim counts, not the start of the container.
    harness.shift_claim(held, timedelta(seconds=-1500))
    harness.beat(held, consumer="bob")
    left = look(harness, held.uid).eta
    assert left is not None
    assert 0 < left <= round(median - 1500, 1)


def test_the_eta_counts_the_size_of_the_input(harness: Harness) -> None:
    for size in (1000, 2000, 4000):
        held = harness.claim(uid=harness.submit(files={"a": os.urandom(size * 1000)}))
        harness.shift_claim(held, timedelta(seconds=-size))
        harness.beat(held)
        harness.commit(held)
    small, large = (look(harness, harness.submit(files={"a": os.urandom(size * 1000)})).eta for size in (1000, 4000))
    assert small is not None
    assert large is not None
    # One stands before the other; without its size both would be expected to take 2000 s.
    assert large > small + 2900


def test_a_pull_is_told_with_its_percent_while_it_lasts(harness: Harness) -> None:
    held = harness.submit_and_claim()
    assert told(harness, held.uid)[0] is WaitsFor.PREPARATION

    def beat(percent: int | None, phase: Phase = Phase.PREPARING) -> TaskView:
        beat_task(harness.database, held.uid, held.fence, Heartbeat(consumer="ada", phase=phase, pull_percent=percent))
        return look(harness, held.uid)

    view = beat(41)
    assert (view.waits_for, view.pull_percent) == (WaitsFor.IMAGE, 41)
    assert "41 % done" in (view.wait_detail or "")
    body = poll(harness, held.uid).to_body()
    assert (body["waits_for"], body["pull_percent"]) == ("image", 41)
    assert beat(None).waits_for is WaitsFor.PREPARATION
    beat(99)
    view = beat(99, Phase.RUNNING)
    assert (view.waits_for, view.pull_percent) == (None, None)


def test_a_new_attempt_begins_without_the_percent_of_the_last(harness: Harness) -> None:
    held = harness.submit_and_claim()
    beat_task(harness.database, held.uid, held.fence, Heartbeat(consumer="ada", phase=Phase.PREPARING, pull_percent=41))
    harness.release(held, blameless=True)
    assert look(harness, held.uid).pull_percent is None
    again = harness.claim("bob", uid=held.uid)
    assert look(harness, again.uid).pull_percent is None
    assert told(harness, held.uid)[0] is WaitsFor.PREPARATION


def test_a_beat_of_an_older_consumer_says_nothing_of_a_pull(harness: Harness) -> None:
    old = Heartbeat.model_validate({"consumer": "ada", "phase": "preparing"})
    held = harness.submit_and_claim()
    beat_task(harness.database, held.uid, held.fence, old)
    assert told(harness, held.uid)[0] is WaitsFor.PREPARATION


def test_the_eta_is_unknown_rather_than_zero(harness: Harness) -> None:
    run(harness, timedelta(seconds=100))
    held = harness.submit_and_claim()
    harness.shift_claim(held, timedelta(seconds=-1000))
    assert look(harness, held.uid).eta is None
    # Nobody knows when a consumer will be there.
    waiting = harness.submit()
    assert look(harness, waiting).eta is not None
    silence(harness, "ada")
    assert look(harness, waiting).eta is None
