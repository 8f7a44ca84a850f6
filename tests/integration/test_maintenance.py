"""What happens in the background: bells, retention, orphans, tasks that nobody can run. On PostgreSQL and SQLite."""

import asyncio
import os
import time
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, func, select, update

from contract.access import ANONYMOUS
from contract.broker import CPU_QUEUE, GPU_QUEUE
from contract.broker.memory import InMemoryBroker
from contract.errors import OutputMissing, TaskPending
from contract.queries import ModelRegistration
from contract.statuses import Reason, Status
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.loops.dispatcher import Dispatcher
from private_api.loops.endings import Endings
from private_api.loops.janitor import Janitor
from private_api.loops.orphans import ORPHAN_AGE_S, Orphans
from private_api.models import register_model
from private_api.placement import outlook
from private_api.placement.outlook import find_output, show_task
from private_api.placement.places import find_position, find_positions
from private_api.recent import AT_ONCE, Recent
from private_api.server_tables import HeartbeatRow
from private_api.tables import ArchiveRow, ConsumerRow, TaskRow
from private_api.tasks.read import poll_error
from private_api.watch import TaskWatch
from tests.filled import fill_with_ended_tasks, requeue_copies
from tests.integration.task_harness import GPU, Harness
from tests.waiting import wait_until
from tests.zips import make_zip

DAY = timedelta(days=1)


def hear(broker: InMemoryBroker, queue: str = CPU_QUEUE) -> list[str]:
    """Every bell that waits, taken off."""
    heard = []
    while delivery := broker.receive([queue], 0):
        delivery.ack()
        heard.append(delivery.uid)
    return heard


def clean(harness: Harness, keep_finished_for: timedelta = 30 * DAY) -> int:
    return Janitor(harness.database, harness.store, harness.logs, keep_finished_for=keep_finished_for).step()


def walk(harness: Harness) -> int:
    """One step of a walk past every file."""
    return Orphans(harness.database, harness.store, harness.logs).step()


def make_older(store: ArchiveStore, key: str, age_s: float = ORPHAN_AGE_S + 60) -> None:
    moment = time.time() - age_s
    os.utime(store.path(key), (moment, moment))


def test_the_dispatcher_rings_once_for_each_queued_task_in_the_queue_of_its_kind(harness: Harness) -> None:
    harness.register("big", use_gpu=True)
    on_cpu, on_gpu = [harness.submit() for _ in range(60)], harness.submit("big")
    broker = InMemoryBroker()
    dispatcher = Dispatcher(harness.database, broker)
    assert dispatcher.step() == 61
    assert dispatcher.step() == 0
    assert hear(broker) == on_cpu
    assert hear(broker, GPU_QUEUE) == [on_gpu]


def test_bells_wait_while_the_broker_is_away_and_ring_once_it_is_back(harness: Harness) -> None:
    uids = [harness.submit() for _ in range(3)]
    with InMemoryBroker() as gone:
        pass
    assert Dispatcher(harness.database, gone).step() == 0
    assert harness.bells() == 3
    back = InMemoryBroker()
    assert Dispatcher(harness.database, back).step() == 3
    assert hear(back) == uids
    assert harness.bells() == 0


def test_a_task_that_was_claimed_meanwhile_needs_no_bell(harness: Harness) -> None:
    harness.submit_and_claim()
    broker = InMemoryBroker()
    assert Dispatcher(harness.database, broker).step() == 0
    assert (hear(broker), harness.bells()) == ([], 0)


def test_a_task_that_waits_after_a_failure_is_rung_for_when_its_pause_ends(harness: Harness) -> None:
    held = harness.submit_and_claim()
    broker = InMemoryBroker()
    dispatcher = Dispatcher(harness.database, broker)
    dispatcher.step()
    harness.release(held)
    assert dispatcher.step() == 0
    assert harness.bells() == 1
    harness.shift_bells(timedelta(seconds=-11))
    assert dispatcher.step() == 1
    assert hear(broker) == [held.uid]


def test_results_are_removed_after_retention_and_polling_says_so(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.logs.append(held.uid, held.fence, 0, b"a line\n")
    harness.commit(held)
    waiting = harness.submit()
    output = find_output(harness.database, harness.store, harness.logs, held.uid, ANONYMOUS)
    assert clean(harness) == 0
    assert clean(harness, timedelta(0)) == 2
    with pytest.raises(OutputMissing, match="KEEP_FINISHED_FOR"):
        find_output(harness.database, harness.store, harness.logs, held.uid, ANONYMOUS)
    assert not harness.store.path(output.key).parent.exists()
    assert harness.logs.tail(held.uid, held.fence) == ""
    view = show_task(harness.database, harness.logs, held.uid, ANONYMOUS)
    assert (view.status, view.output, view.input) == (Status.FINISHED, None, None)
    assert harness.claim().uid == waiting
    assert clean(harness, timedelta(0)) == 0


def test_a_log_goes_even_if_the_files_of_another_task_cannot_be_removed(harness: Harness) -> None:
    helds = [harness.submit_and_claim() for _ in range(2)]
    for held in helds:
        harness.logs.append(held.uid, held.fence, 0, b"a line\n")
        harness.fail(held)
    stuck = harness.store.path(f"inputs/{helds[0].uid}.zip")
    stuck.unlink()
    stuck.mkdir()
    with pytest.raises(OSError, match=str(stuck)):
        clean(harness, timedelta(0))
    clean(harness, timedelta(0))
    assert [harness.logs.path(held.uid, held.fence).exists() for held in helds] == [False, False]


def test_orphans_older_than_a_day_are_removed_and_everything_else_is_kept(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.commit(held)
    output = find_output(harness.database, harness.store, harness.logs, held.uid, ANONYMOUS)
    registration = ModelRegistration(human_readable_id="m", container_tag="m:1", model_available=True)
    with_zip = harness.store.open_upload(None)
    with_zip.write(make_zip())
    model = register_model(harness.database, harness.store, registration, with_zip, ANONYMOUS)
    assert model.archive is not None
    (model_zip,) = (key for key in harness.store.kept_keys(-60) if model.archive.sha256 in key)
    orphans = ["inputs/orphan.zip", "outputs/orphan/1-x.zip", "models/orphan.zip", "tmp/broken"]
    young = ["inputs/young.zip", "tmp/writing"]
    kept = [f"inputs/{held.uid}.zip", output.key, model_zip]
    for key in [*orphans, *young]:
        harness.store.path(key).parent.mkdir(exist_ok=True)
        harness.store.path(key).write_bytes(b"x")
    for key in [*orphans, *kept]:
        make_older(harness.store, key)
    assert walk(harness) == len(orphans)
    assert [key for key in [*orphans, *young, *kept] if harness.store.path(key).exists()] == [*young, *kept]
    assert not harness.store.path("outputs/orphan").exists()


def test_a_walk_asks_for_many_files_at_once_and_looks_at_each_once_a_day(harness: Harness) -> None:
    keys = [f"inputs/{number}.zip" for number in range(250)]
    for key in keys:
        harness.store.path(key).write_bytes(b"x")
        make_older(harness.store, key)
    with harness.database.write() as session:
        now = harness.database.now(session)
        session.add_all(ArchiveRow(key=key, sha256="0" * 64, size_bytes=1, created_at=now) for key in keys[1:])
    asked: list[str] = []
    event.listen(harness.database.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    orphans = Orphans(harness.database, harness.store, harness.logs)
    assert orphans.step() == 1
    assert not harness.store.path(keys[0]).exists()
    # One for each file would be 250.
    assert len(asked) < 50
    harness.store.path(keys[0]).write_bytes(b"x")
    make_older(harness.store, keys[0])
    assert orphans.step() == 0


def test_a_walk_past_many_files_takes_several_steps(harness: Harness) -> None:
    keys = [f"inputs/{number}.zip" for number in range(1500)]
    for key in keys:
        harness.store.path(key).write_bytes(b"x")
        make_older(harness.store, key)
    orphans = Orphans(harness.database, harness.store, harness.logs)
    assert [orphans.step() for _ in range(3)] == [1000, 500, 0]


def test_what_a_release_before_left_of_a_tombstone_is_removed(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.commit(held)
    output = find_output(harness.database, harness.store, harness.logs, held.uid, ANONYMOUS)
    # It made the tombstone in one transaction and closed the archives in another one, which a crash kept from it.
    with harness.database.write() as session:
        session.execute(update(TaskRow).values(forgotten_at=harness.database.now(session)))
    for key in (output.key, f"inputs/{held.uid}.zip"):
        make_older(harness.store, key)
    assert walk(harness) == 2
    with harness.database.read() as session:
        assert session.scalar(select(func.count()).where(ArchiveRow.removed_at.is_(None))) == 0


def test_a_step_of_the_janitor_does_not_do_everything_at_once(harness: Harness) -> None:
    fill_with_ended_tasks(harness.database, 250)
    with harness.database.write() as session:
        session.execute(update(TaskRow).values(deleted_at=TaskRow.ended_at))
    janitor = Janitor(harness.database, harness.store, harness.logs, keep_finished_for=30 * DAY)
    assert (janitor.step(), janitor.is_behind) == (2 * 100, True)
    assert (janitor.step(), janitor.is_behind) == (2 * 100, True)
    assert (janitor.step(), janitor.is_behind) == (2 * 50, False)
    assert (janitor.step(), janitor.is_behind) == (0, False)


def test_a_file_that_was_left_after_its_row_was_closed_is_removed_in_the_end(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.commit(held)
    key = find_output(harness.database, harness.store, harness.logs, held.uid, ANONYMOUS).key
    clean(harness, timedelta(0))
    harness.store.path(key).parent.mkdir()
    harness.store.path(key).write_bytes(b"left by a crash")
    make_older(harness.store, key)
    assert walk(harness) == 1
    assert not harness.store.path(key).exists()


def test_a_task_that_nobody_can_run_fails_and_says_what_is_missing(harness: Harness) -> None:
    harness.register("big", use_gpu=True)
    on_gpu, on_cpu, fresh = harness.submit("big"), harness.submit(), harness.submit("big")
    held = harness.claim("cpu-only")
    for uid in (on_gpu, on_cpu):
        harness.shift(uid, not_before=-2 * DAY)
    assert harness.reap() == [on_gpu]
    row = harness.row(on_gpu)
    assert (row.status, row.reason) == (Status.FAILED, Reason.NO_CAPABLE_CONSUMER)
    assert "with a GPU" in (row.detail or "")
    assert harness.row(fresh).status == Status.QUEUED
    assert held.uid == on_cpu


def test_consumers_get_time_to_come_back_after_the_server_was_away(harness: Harness) -> None:
    harness.try_claim("ada")
    uid = harness.submit()
    harness.reap()
    # The server is off for two days, and starts a little earlier than its consumer.
    harness.shift(uid, not_before=-2 * DAY)
    harness.set_reaper(2 * DAY)
    with harness.database.write() as session:
        session.get_one(ConsumerRow, "ada").seen_at -= 2 * DAY
    assert [harness.reap(), harness.reap()] == [[], []]
    assert harness.row(uid).status == Status.QUEUED
    with harness.database.write() as session:
        session.get_one(HeartbeatRow, "reaper.back").at -= timedelta(minutes=11)
    assert harness.reap() == [uid]


def test_a_task_waits_on_while_a_consumer_that_could_run_it_was_seen(harness: Harness) -> None:
    uid = harness.submit()
    harness.try_claim("gpu-only", gpu=GPU, cpu=False)
    harness.claim("busy", uid=harness.submit())
    harness.shift(uid, not_before=-2 * DAY)
    assert harness.reap() == []
    with harness.database.write() as session:
        session.get_one(ConsumerRow, "busy").seen_at -= 2 * DAY
    assert harness.reap() == [uid]


def test_the_position_counts_the_tasks_that_are_claimed_before(harness: Harness) -> None:
    harness.register("big", use_gpu=True)
    harness.submit("big")
    uids = [harness.submit() for _ in range(3)]

    def positions() -> list[int | None]:
        return [show_task(harness.database, harness.logs, uid, ANONYMOUS).position for uid in uids]

    assert positions() == [0, 1, 2]
    harness.release(harness.claim(uid=uids[0]))
    assert positions() == [2, 0, 1]
    harness.claim(uid=uids[1])
    assert positions() == [1, None, 0]


def test_the_position_in_a_long_queue_is_the_one_that_counting_gives(harness: Harness) -> None:
    last = harness.submit()
    requeue_copies(harness.database, last, 2500)
    urgent = [harness.submit(priority=5) for _ in range(3)]
    with harness.database.read() as session:
        order = (TaskRow.priority.desc(), TaskRow.not_before, TaskRow.id)
        rows = session.scalars(select(TaskRow).order_by(*order)).all()
        places = {0, 1, 2, 3, 998, 999, 1000, 1001, 1002, 1003, 1999, 2000, 2001, 2002, 2501, 2502, 2503}
        assert [find_position(session, rows[place], AT_ONCE) for place in sorted(places)] == sorted(places)
        # Many at once, and few.
        for some in (range(len(rows)), range(0, len(rows), 400), sorted(places)):
            found = find_positions(session, [rows[place] for place in some], AT_ONCE)
            assert found == {rows[place].id: place for place in some}
    assert [row.uid for row in rows[:3]] == urgent
    with pytest.raises(TaskPending) as raised:
        find_output(harness.database, harness.store, harness.logs, last, ANONYMOUS)
    assert raised.value.to_body()["position"] == [row.uid for row in rows].index(last)


def test_a_poll_in_the_moment_in_which_a_task_ends_is_not_told_that_its_output_is_gone(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = harness.submit_and_claim()
    harness.beat(held)
    read = outlook.read_polled

    def read_and_end(database: Database, *rest: Any) -> tuple[TaskRow, datetime]:
        found = read(database, *rest)
        harness.commit(held)
        return found

    monkeypatch.setattr(outlook, "read_polled", read_and_end)
    try:
        output = find_output(harness.database, harness.store, harness.logs, held.uid, ANONYMOUS)
        assert output.size_bytes == len(b"output")
    except TaskPending:
        # A transaction of SQLite reads as of its begin.
        assert harness.database.is_sqlite


def test_a_poll_says_the_same_as_the_task_s_status(harness: Harness) -> None:
    uid = harness.submit()
    with pytest.raises(TaskPending) as raised:
        find_output(harness.database, harness.store, harness.logs, uid, ANONYMOUS)
    view = show_task(harness.database, harness.logs, uid, ANONYMOUS)
    assert raised.value.to_body() == poll_error(view).to_body()


def test_what_is_kept_of_late_is_read_again_once_it_is_old() -> None:
    numbers = iter(range(1000))
    kept, aging = Recent(3600), Recent(0.01)
    assert [kept.get(key, lambda: next(numbers)) for key in "aab"] == [0, 0, 1]
    assert [AT_ONCE.get("a", lambda: next(numbers)) for _ in range(2)] == [2, 3]
    assert aging.get("a", lambda: next(numbers)) == 4
    wait_until(lambda: aging.get("a", lambda: next(numbers)) > 4, "it is read again")


def test_long_polls_hear_of_what_another_process_ended(harness: Harness) -> None:
    ended, waiting = harness.submit_and_claim(), harness.submit()
    harness.commit(ended)

    async def wait() -> list[bool]:
        watch = TaskWatch()
        async with watch.watch(ended.uid) as one, watch.watch(waiting) as other, watch.watch("no uid"):
            assert await asyncio.to_thread(Endings(harness.database, watch).step) == 1
            told = [asyncio.create_task(each.told(60)) for each in (one, other)]
            await asyncio.wait(told, return_when=asyncio.FIRST_COMPLETED)
            done = [each.done() for each in told]
            for each in told:
                each.cancel()
            return done

    assert asyncio.run(wait()) == [True, False]
