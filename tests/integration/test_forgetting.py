"""What stays of a task that was deleted or is expired, and for how long. On PostgreSQL and SQLite."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, func, make_url, select, update
from sqlalchemy.exc import DBAPIError

from contract.access import Caller, Scope
from contract.errors import OutputMissing, ServiceUnavailable, TaskFailed, TaskNotFound
from contract.heartbeats import Heartbeat, Progress
from contract.schemas import Assignment, Failure
from contract.statuses import Phase, Reason, Status
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.feed.changes import newest_id
from private_api.loops.janitor import Janitor
from private_api.loops.orphans import ORPHAN_AGE_S, Orphans
from private_api.migrate import upgrade_when_reachable
from private_api.placement.outlook import find_output, show_task
from private_api.settings import KEEP_RECORDS_FOR
from private_api.tables import ArchiveRow, AttemptRow, Base, EventRow, OutboxRow, TaskRow
from private_api.task_logs import TaskLogs
from private_api.tasks.attempts import beat_task
from private_api.tasks.cancel import delete_task
from private_api.tasks.history import list_attempts
from private_api.tasks.settle import commit_output, fail_task
from tests.canary import columns_with, files_with
from tests.integration.task_harness import Harness

MARK = "SMITH^JOHN"
ADA = Caller("ada", frozenset({Scope.SUBMIT}))
OPERATOR = Caller("olga", frozenset({Scope.OPERATE}))
DAY = timedelta(days=1)
NEVER, AT_ONCE = timedelta(days=30), timedelta(0)


def clean(harness: Harness, *, keep: timedelta = NEVER, records: timedelta = KEEP_RECORDS_FOR) -> None:
    Janitor(harness.database, harness.store, harness.logs, keep_finished_for=keep, keep_records_for=records).step()


def run(harness: Harness) -> Assignment:
    """A task that runs, whose every text has the mark: file name, label, key, progress, log."""
    files = {f"{MARK}.dcm": b"a scan"}
    uid = harness.submit(files=files, key=f"{MARK}-{time.time()}", caller=ADA, label=f"study of {MARK}")
    held = harness.claim(uid=uid)
    progress = Progress(fraction=0.5, text=f"reading {MARK}")
    beat_task(harness.database, uid, held.fence, Heartbeat(consumer="ada", phase=Phase.RUNNING, progress=progress))
    harness.logs.append(uid, held.fence, 0, f"reading {MARK}\n".encode())
    harness.logs.show_line(uid, held.fence, MARK.encode())
    return held


def fail(harness: Harness, held: Assignment) -> None:
    failure = Failure(consumer="ada", reason=Reason.EXIT_CODE, detail=f"cannot read {MARK}.dcm", exit_code=3)
    fail_task(harness.database, held.uid, held.fence, failure)


def finish(harness: Harness, held: Assignment) -> None:
    commit = harness.upload(held).model_copy(update={"warnings": [f"{MARK}.dcm is a link"], "warning_count": 1})
    commit_output(harness.database, harness.store, held.uid, held.fence, commit)


def marked(harness: Harness) -> set[str]:
    """Where the mark is, in every column of every table and in every file of the data folder."""
    found = columns_with(harness.database.engine, MARK)
    folders = {"archives": harness.store.path("inputs").parent, "logs": harness.logs.root}
    return found | {name for name, folder in folders.items() if files_with(folder, MARK)}


def count(harness: Harness, row: type[Base]) -> int:
    with harness.database.read() as session:
        return session.scalar(select(func.count()).select_from(row)) or 0


BEFORE = {"tasks.owner_idempotency_key", "tasks.label", "archives", "logs"}


@pytest.mark.parametrize("is_deleted", [True, False], ids=["deleted", "expired"])
def test_of_a_failed_task_a_tombstone_stays(harness: Harness, is_deleted: bool) -> None:
    held = run(harness)
    fail(harness, held)
    assert marked(harness) == BEFORE | {"tasks.detail", "attempts.detail"}
    before = harness.row(held.uid)
    if is_deleted:
        delete_task(harness.database, held.uid, ADA)
        clean(harness)
    else:
        clean(harness, keep=AT_ONCE)
    assert marked(harness) == set()
    row = harness.row(held.uid)
    kept = ("uid", "owner", "model_version_id", "status", "reason", "exit_code", "created_at", "started_at", "ended_at")
    assert [getattr(row, name) for name in kept] == [getattr(before, name) for name in kept]
    assert harness.attempts(held.uid) == [(held.fence, "exit_code")]
    assert harness.events(held.uid)[-1] == ("running", "failed")


def test_of_a_finished_task_a_tombstone_stays(harness: Harness) -> None:
    held = run(harness)
    finish(harness, held)
    assert marked(harness) == BEFORE | {"tasks.warnings"}
    delete_task(harness.database, held.uid, ADA)
    clean(harness)
    assert marked(harness) == set()
    assert harness.row(held.uid).warning_count == 0


def test_a_task_that_is_deleted_while_it_runs_is_forgotten_once_it_has_ended(harness: Harness) -> None:
    held = run(harness)
    assert marked(harness) == BEFORE | {"tasks.progress_text"}
    delete_task(harness.database, held.uid, ADA)
    clean(harness)
    assert "tasks.label" in marked(harness)
    fail(harness, held)
    clean(harness)
    assert marked(harness) == set()


def test_what_is_kept_is_left_alone(harness: Harness) -> None:
    fail(harness, run(harness))
    clean(harness)
    assert marked(harness) == BEFORE | {"tasks.detail", "attempts.detail"}


def test_polls_of_tombstones_answer_as_before(harness: Harness) -> None:
    failed, finished, deleted = (run(harness) for _ in range(3))
    fail(harness, failed)
    finish(harness, finished)
    finish(harness, deleted)
    delete_task(harness.database, deleted.uid, ADA)
    clean(harness, keep=AT_ONCE)
    for held, error in ((failed, TaskFailed), (finished, OutputMissing), (deleted, TaskNotFound)):
        with pytest.raises(error) as raised:
            find_output(harness.database, harness.store, harness.logs, held.uid, ADA)
        assert MARK not in str(raised.value.to_body())
    view = show_task(harness.database, harness.logs, failed.uid, ADA)
    assert (view.status, view.reason, view.exit_code, view.log_tail) == (Status.FAILED, Reason.EXIT_CODE, 3, None)
    (attempt,) = list_attempts(harness.database, failed.uid, ADA)
    assert (attempt.consumer, attempt.outcome, attempt.detail) == ("ada", "exit_code", None)


def test_a_tombstone_is_removed_in_the_end_with_all_that_hangs_on_it(harness: Harness) -> None:
    deleted, expired, _ = (run(harness) for _ in range(3))
    fail(harness, deleted)
    delete_task(harness.database, deleted.uid, ADA)
    finish(harness, expired)
    newest = run(harness)
    tables = TaskRow, EventRow, AttemptRow, OutboxRow, ArchiveRow
    counts = [[count(harness, row) for row in tables]]
    for keep, records in ((NEVER, KEEP_RECORDS_FOR), (NEVER, AT_ONCE), (AT_ONCE, DAY), (AT_ONCE, AT_ONCE)):
        clean(harness, keep=keep, records=records)
        counts.append([count(harness, row) for row in tables])
    all_of_them, forgotten, one_less, expired_too, two_less = counts
    assert all_of_them == forgotten == [4, 14, 4, 4, 5]
    assert one_less == expired_too == [3, 10, 3, 3, 4]
    assert two_less == [2, 6, 2, 2, 2]
    for held in (deleted, expired):
        with pytest.raises(TaskNotFound):
            show_task(harness.database, harness.logs, held.uid, ADA)
    assert show_task(harness.database, harness.logs, newest.uid, ADA).label == f"study of {MARK}"


def test_ids_of_events_are_not_given_twice(harness: Harness) -> None:
    """The stream of events counts by them."""
    held = run(harness)
    fail(harness, held)
    delete_task(harness.database, held.uid, ADA)
    last = newest_id(harness.database)
    clean(harness, records=AT_ONCE)
    assert count(harness, TaskRow) == 1
    harness.submit()
    assert newest_id(harness.database) == last + 1
    clean(harness, records=AT_ONCE)
    assert count(harness, TaskRow) == 1


def test_only_what_hangs_on_a_tombstone_can_be_removed(harness: Harness) -> None:
    fail(harness, run(harness))
    for statement in (delete(EventRow), delete(AttemptRow), update(AttemptRow).values(detail="another one")):
        with pytest.raises((DBAPIError, ServiceUnavailable)), harness.database.write() as session:
            session.execute(statement)
    with harness.database.write() as session:
        session.execute(update(AttemptRow).values(detail=None))
    with pytest.raises((DBAPIError, ServiceUnavailable)), harness.database.write() as session:
        session.execute(update(AttemptRow).values(detail=None, consumer="eve"))


def test_a_key_of_a_tombstone_submits_a_new_task(harness: Harness) -> None:
    first = harness.submit(key="k", caller=ADA)
    assert harness.submit(key="k", caller=ADA) == first
    delete_task(harness.database, first, ADA)
    clean(harness)
    assert harness.submit(key="k", caller=ADA) != first


def test_a_log_of_no_task_is_removed_once_it_is_a_day_old(harness: Harness) -> None:
    kept, late = run(harness), run(harness)
    fail(harness, late)
    delete_task(harness.database, late.uid, ADA)
    clean(harness)
    # A piece that was under way as its task was forgotten, and one of a task that no row knows.
    harness.logs.append(late.uid, late.fence, 0, MARK.encode())
    harness.logs.append("0" * 64, 1, 0, MARK.encode())
    young = harness.logs.path("1" * 64, 1)
    young.write_bytes(b"a line")
    for path in set(harness.logs.root.iterdir()) - {young}:
        os.utime(path, (time.time() - ORPHAN_AGE_S - 60,) * 2)
    Orphans(harness.database, harness.store, harness.logs).step()
    left = {path.name.partition("-")[0] for path in harness.logs.root.iterdir()}
    assert left == {kept.uid, "1" * 64}


def test_sqlite_keeps_nothing_in_free_pages_or_its_log_of_changes(sqlite_url: str, tmp_path: Path) -> None:
    database = Database(sqlite_url)
    upgrade_when_reachable(database)
    harness = Harness(database, ArchiveStore(tmp_path / "archives"), TaskLogs(tmp_path / "logs"))
    harness.register()
    file = Path(make_url(sqlite_url).database or "")

    def has_mark() -> bool:
        return any(MARK.encode() in path.read_bytes() for path in file.parent.glob(f"{file.name}*"))

    try:
        held = run(harness)
        fail(harness, held)
        delete_task(database, held.uid, ADA)
        assert has_mark()
        clean(harness)
        assert not has_mark()
    finally:
        database.close()


def test_operators_see_the_facts_of_a_task_and_nothing_that_may_name_a_patient(harness: Harness) -> None:
    held = run(harness)
    fail(harness, held)
    own = show_task(harness.database, harness.logs, held.uid, ADA)
    assert (own.log_tail, own.detail) == (f"reading {MARK}\n", f"cannot read {MARK}.dcm")
    view = show_task(harness.database, harness.logs, held.uid, OPERATOR)
    assert (view.owner, view.reason, view.exit_code) == ("ada", Reason.EXIT_CODE, 3)
    with pytest.raises(TaskFailed) as raised:
        find_output(harness.database, harness.store, harness.logs, held.uid, OPERATOR)
    assert MARK not in view.model_dump_json() + str(raised.value.to_body())
