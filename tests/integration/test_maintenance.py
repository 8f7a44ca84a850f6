"""What happens in the background: bells, retention, orphans, tasks that nobody can run. On PostgreSQL and SQLite."""

import os
import time
from datetime import timedelta

import pytest

from contract.broker import CPU_QUEUE, GPU_QUEUE
from contract.errors import OutputMissing
from contract.memory_broker import InMemoryBroker
from contract.schemas import ModelRegistration
from contract.statuses import Reason, Status
from private_api.archives import ArchiveStore
from private_api.callers import ANONYMOUS
from private_api.dispatcher import Dispatcher
from private_api.janitor import ORPHAN_AGE_S, Janitor
from private_api.models import register_model
from private_api.tables import ConsumerRow, HeartbeatRow
from private_api.tasks.read import find_output, show_task
from tests.integration.task_bench import GPU, Bench
from tests.zips import make_zip

DAY = timedelta(days=1)


def hear(broker: InMemoryBroker, queue: str = CPU_QUEUE) -> list[str]:
    """Every bell that waits, taken off."""
    heard = []
    while delivery := broker.receive([queue], 0):
        delivery.ack()
        heard.append(delivery.uid)
    return heard


def clean(bench: Bench, keep_finished_for: timedelta = 30 * DAY) -> int:
    return Janitor(bench.database, bench.store, bench.logs, keep_finished_for=keep_finished_for).step()


def make_older(store: ArchiveStore, key: str, age_s: float = ORPHAN_AGE_S + 60) -> None:
    moment = time.time() - age_s
    os.utime(store.path(key), (moment, moment))


def test_the_dispatcher_rings_once_for_each_queued_task_in_the_queue_of_its_kind(bench: Bench) -> None:
    bench.register("big", use_gpu=True)
    on_cpu, on_gpu = [bench.submit() for _ in range(60)], bench.submit("big")
    broker = InMemoryBroker()
    dispatcher = Dispatcher(bench.database, broker)
    assert dispatcher.step() == 61
    assert dispatcher.step() == 0
    assert hear(broker) == on_cpu
    assert hear(broker, GPU_QUEUE) == [on_gpu]


def test_bells_wait_while_the_broker_is_away_and_ring_once_it_is_back(bench: Bench) -> None:
    uids = [bench.submit() for _ in range(3)]
    with InMemoryBroker() as gone:
        pass
    assert Dispatcher(bench.database, gone).step() == 0
    assert bench.bells() == 3
    back = InMemoryBroker()
    assert Dispatcher(bench.database, back).step() == 3
    assert hear(back) == uids
    assert bench.bells() == 0


def test_a_task_that_was_claimed_meanwhile_needs_no_bell(bench: Bench) -> None:
    bench.submit_and_claim()
    broker = InMemoryBroker()
    assert Dispatcher(bench.database, broker).step() == 0
    assert (hear(broker), bench.bells()) == ([], 0)


def test_a_task_that_waits_after_a_failure_is_rung_for_when_its_pause_ends(bench: Bench) -> None:
    held = bench.submit_and_claim()
    broker = InMemoryBroker()
    dispatcher = Dispatcher(bench.database, broker)
    dispatcher.step()
    bench.release(held)
    assert dispatcher.step() == 0
    assert bench.bells() == 1
    bench.shift_bells(timedelta(seconds=-11))
    assert dispatcher.step() == 1
    assert hear(broker) == [held.uid]


def test_results_are_removed_after_retention_and_polling_says_so(bench: Bench) -> None:
    held = bench.submit_and_claim()
    bench.logs.append(held.uid, held.fence, 0, b"a line\n")
    bench.commit(held)
    waiting = bench.submit()
    output = find_output(bench.database, bench.store, bench.logs, held.uid, ANONYMOUS)
    assert clean(bench) == 0
    assert clean(bench, timedelta(0)) == 2
    with pytest.raises(OutputMissing, match="KEEP_FINISHED_FOR"):
        find_output(bench.database, bench.store, bench.logs, held.uid, ANONYMOUS)
    assert not bench.store.path(output.key).parent.exists()
    assert bench.logs.tail(held.uid, held.fence) == ""
    view = show_task(bench.database, bench.logs, held.uid, ANONYMOUS)
    assert (view.status, view.output, view.input) == (Status.FINISHED, None, None)
    assert bench.claim().uid == waiting
    assert clean(bench, timedelta(0)) == 0


def test_a_log_goes_even_if_the_files_of_another_task_cannot_be_removed(bench: Bench) -> None:
    helds = [bench.submit_and_claim() for _ in range(2)]
    for held in helds:
        bench.logs.append(held.uid, held.fence, 0, b"a line\n")
        bench.fail(held)
    stuck = bench.store.path(f"inputs/{helds[0].uid}.zip")
    stuck.unlink()
    stuck.mkdir()
    with pytest.raises(OSError, match=str(stuck)):
        clean(bench, timedelta(0))
    clean(bench, timedelta(0))
    assert [bench.logs.path(held.uid, held.fence).exists() for held in helds] == [False, False]


def test_orphans_older_than_a_day_are_removed_and_everything_else_is_kept(bench: Bench) -> None:
    held = bench.submit_and_claim()
    bench.commit(held)
    output = find_output(bench.database, bench.store, bench.logs, held.uid, ANONYMOUS)
    registration = ModelRegistration(human_readable_id="m", container_tag="m:1", model_available=True)
    with_zip = bench.store.open_upload(None)
    with_zip.write(make_zip())
    model = register_model(bench.database, bench.store, registration, with_zip)
    assert model.archive is not None
    orphans = ["inputs/orphan.zip", "outputs/orphan/1-x.zip", "models/orphan.zip", "tmp/broken"]
    young = ["inputs/young.zip", "tmp/writing"]
    kept = [f"inputs/{held.uid}.zip", output.key, f"models/{model.archive.sha256}.zip"]
    for key in [*orphans, *young]:
        bench.store.path(key).parent.mkdir(exist_ok=True)
        bench.store.path(key).write_bytes(b"x")
    for key in [*orphans, *kept]:
        make_older(bench.store, key)
    assert clean(bench) == len(orphans)
    assert [key for key in [*orphans, *young, *kept] if bench.store.path(key).exists()] == [*young, *kept]
    assert not bench.store.path("outputs/orphan").exists()


def test_a_file_that_was_left_after_its_row_was_closed_is_removed_in_the_end(bench: Bench) -> None:
    held = bench.submit_and_claim()
    bench.commit(held)
    key = find_output(bench.database, bench.store, bench.logs, held.uid, ANONYMOUS).key
    clean(bench, timedelta(0))
    bench.store.path(key).parent.mkdir()
    bench.store.path(key).write_bytes(b"left by a crash")
    make_older(bench.store, key)
    assert clean(bench) == 1
    assert not bench.store.path(key).exists()


def test_a_task_that_nobody_can_run_fails_and_says_what_is_missing(bench: Bench) -> None:
    bench.register("big", use_gpu=True)
    on_gpu, on_cpu, fresh = bench.submit("big"), bench.submit(), bench.submit("big")
    held = bench.claim("cpu-only")
    for uid in (on_gpu, on_cpu):
        bench.shift(uid, created_at=-2 * DAY)
    assert bench.reap() == [on_gpu]
    row = bench.row(on_gpu)
    assert (row.status, row.reason) == (Status.FAILED, Reason.NO_CAPABLE_CONSUMER)
    assert "with a GPU" in (row.detail or "")
    assert bench.row(fresh).status == Status.QUEUED
    assert held.uid == on_cpu


def test_consumers_get_time_to_come_back_after_the_server_was_away(bench: Bench) -> None:
    bench.try_claim("ada")
    uid = bench.submit()
    bench.reap()
    # The server is off for two days, and starts a little earlier than its consumer.
    bench.shift(uid, created_at=-2 * DAY)
    bench.set_reaper(2 * DAY)
    with bench.database.write() as session:
        session.get_one(ConsumerRow, "ada").seen_at -= 2 * DAY
    assert [bench.reap(), bench.reap()] == [[], []]
    assert bench.row(uid).status == Status.QUEUED
    with bench.database.write() as session:
        session.get_one(HeartbeatRow, "reaper.back").at -= timedelta(minutes=11)
    assert bench.reap() == [uid]


def test_a_task_waits_on_while_a_consumer_that_could_run_it_was_seen(bench: Bench) -> None:
    uid = bench.submit()
    bench.try_claim("gpu-only", gpu=GPU, cpu=False)
    bench.claim("busy", uid=bench.submit())
    bench.shift(uid, created_at=-2 * DAY)
    assert bench.reap() == []
    with bench.database.write() as session:
        session.get_one(ConsumerRow, "busy").seen_at -= 2 * DAY
    assert bench.reap() == [uid]


def test_the_position_counts_the_tasks_that_are_claimed_before(bench: Bench) -> None:
    bench.register("big", use_gpu=True)
    bench.submit("big")
    uids = [bench.submit() for _ in range(3)]

    def positions() -> list[int | None]:
        return [show_task(bench.database, bench.logs, uid, ANONYMOUS).position for uid in uids]

    assert positions() == [0, 1, 2]
    bench.release(bench.claim(uid=uids[0]))
    assert positions() == [2, 0, 1]
    bench.claim(uid=uids[1])
    assert positions() == [1, None, 0]


def test_the_eta_comes_from_the_median_run_of_the_model_and_the_tasks_before(bench: Bench) -> None:
    def eta(uid: str) -> float | None:
        return show_task(bench.database, bench.logs, uid, ANONYMOUS).eta

    assert eta(bench.submit()) is None
    for run_s in (10, 20, 600):
        held = bench.claim(uid=bench.submit())
        bench.beat(held)
        bench.shift(held.uid, started_at=timedelta(seconds=-run_s))
        bench.commit(held)
        assert eta(held.uid) is None
    bench.claim()
    waiting = [bench.submit() for _ in range(3)]
    assert [eta(uid) for uid in waiting] == [pytest.approx(20 * place, abs=1) for place in (1, 2, 3)]
    # A second consumer halves the queue.
    held = bench.claim("bob")
    assert [eta(uid) for uid in waiting[1:]] == [pytest.approx(20, abs=1), pytest.approx(20, abs=1)]
    bench.beat(held, consumer="bob")
    bench.shift(held.uid, started_at=timedelta(seconds=-15))
    assert eta(held.uid) == pytest.approx(5, abs=2)
