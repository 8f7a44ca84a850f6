"""A backup brings a server back as it was, except that nobody holds a task any more. On PostgreSQL and SQLite."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import OperationalError

from contract.access import ANONYMOUS, Scope
from contract.deployments import ReplicaBeat, ReplicaEnd, ReplicaReason
from contract.errors import OutputMissing, ServiceUnavailable, StaleFence, TaskFailed
from contract.queries import ModelRegistration
from contract.statuses import Phase, Reason, Status
from private_api.archives import ArchiveStore
from private_api.backup.files import BackupError, Manifest, hash_file, read_lines
from private_api.backup.restore import MARK, Restored, restore
from private_api.backup.write import back_up
from private_api.columns import Base
from private_api.database import Database
from private_api.deployment_tables import GatewayRow
from private_api.deployments.replicas import beat_replica, end_replica, show_replica
from private_api.keys import create_key
from private_api.leases import FENCE_JUMP
from private_api.loops.janitor import Janitor
from private_api.migrate import upgrade
from private_api.models import register_model, show_model
from private_api.placement.outlook import find_output, show_task
from private_api.task_logs import TaskLogs
from private_api.tasks.cancel import cancel_task, delete_task
from tests.integration.deployment_harness import HOSTING, DeploymentHarness
from tests.integration.task_harness import Harness
from tests.zips import make_zip

DAY = timedelta(days=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the backup goes."""
    return tmp_path / "backup"


@pytest.fixture
def blank(empty_database_url: str) -> Iterator[Database]:
    """The database that a restore goes into: each kind, for each kind that a backup comes from."""
    database = Database(empty_database_url)
    yield database
    database.close()


@pytest.fixture
def sqlite_blank(tmp_path: Path) -> Iterator[Database]:
    """An empty database, for what does not depend on its kind."""
    database = Database(f"sqlite:///{tmp_path}/blank.sqlite")
    yield database
    database.close()


def take(harness: Harness, folder: Path) -> Manifest:
    return back_up(harness.database, harness.store, harness.logs, folder)


def bring_back(database: Database, data_dir: Path, folder: Path) -> tuple[Restored, Harness]:
    restored = restore(database, data_dir, folder)
    return restored, Harness(database, ArchiveStore(data_dir / "archives"), TaskLogs(data_dir / "logs"))


def fill(harness: Harness) -> dict[str, str]:
    """A task in every status, and models with versions and a zip; the tasks' uids by what became of them."""
    register_zip(harness, "weighty", b"weights")
    register_zip(harness, "weighty", b"better weights")
    harness.register("big", use_gpu=True)
    create_key(harness.database, owner="ward", scopes=[Scope.SUBMIT], lifetime=DAY)
    uids = {"finished": harness.submit(key="a key")}
    held = harness.claim(uid=uids["finished"])
    harness.logs.append(held.uid, held.fence, 0, b"step 1\n")
    harness.commit(held)
    uids["failed"] = harness.submit()
    harness.fail(harness.claim(uid=uids["failed"]))
    uids["cancelled"] = harness.submit()
    cancel_task(harness.database, uids["cancelled"], ANONYMOUS)
    uids["deleted"] = harness.submit()
    delete_task(harness.database, uids["deleted"], ANONYMOUS)
    uids["released"] = harness.submit()
    harness.release(harness.claim(uid=uids["released"]))
    uids["expired"] = harness.submit()
    harness.claim(uid=uids["expired"])
    harness.expire(uids["expired"])
    uids["leased"] = harness.submit()
    harness.claim(uid=uids["leased"])
    uids["running"] = harness.submit()
    held = harness.claim(uid=uids["running"])
    harness.beat(held)
    harness.logs.append(held.uid, held.fence, 0, b"half of it\n")
    uids["being cancelled"] = harness.submit()
    harness.beat(harness.claim(uid=uids["being cancelled"]))
    cancel_task(harness.database, uids["being cancelled"], ANONYMOUS)
    uids["queued"] = harness.submit("weighty")
    uids["gpu"] = harness.submit("big", priority=7)
    deploy(harness)
    return uids


def deploy(harness: Harness) -> None:
    """A deployment with a ready replica that a gateway uses, after one that ended."""
    plane = DeploymentHarness(harness)
    plane.deploy("weighty", replicas_min=1, prefix="p", model_names=["a", "b"])
    plane.scale()
    plane.end(plane.claim("host"))
    plane.shift_deployment(not_before=-DAY)
    plane.scale()
    held = plane.claim("host")
    plane.beat(held, consumer="host")
    plane.report("weighty", in_flight=1, replicas={held.uid: 1})


def register_zip(harness: Harness, name: str, weights: bytes) -> None:
    upload = harness.store.open_upload(None)
    upload.write(make_zip({"weights": weights}))
    registration = ModelRegistration(
        human_readable_id=name, container_tag="echo:1", model_available=True, replace=True, use_gpu=False
    )
    register_model(harness.database, harness.store, registration, upload, ANONYMOUS)


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    return list(read_lines(folder / "tables" / f"{table}.jsonl"))


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hash_file(path)[0] for path in folder.rglob("*") if path.is_file()}


ENDED = ["finished", "failed", "cancelled", "deleted"]
WAITING = ["released", "expired", "leased", "running", "queued", "gpu"]


def test_everything_comes_back_as_it_was_on_either_kind_of_database(
    harness: Harness, blank: Database, folder: Path, tmp_path: Path
) -> None:
    uids = fill(harness)
    manifest = take(harness, folder)
    assert (manifest.removed, manifest.damaged) == (0, 0)
    restored, back = bring_back(blank, tmp_path / "new", folder)
    assert restored.restarted == len(WAITING)
    again = tmp_path / "again"
    back_up(back.database, back.store, back.logs, again)
    same = ("archives", "models", "model_versions", "api_keys", "consumers", "loop_heartbeats", "deployment_names")
    for table in same:
        assert rows(again, table) == rows(folder, table), table
    for area in ("archives", "logs"):
        assert files(again / area) == files(folder / area) != {}
    for table in ("attempts", "events", "tasks"):
        # What was there is there; what comes after it tells of the restore.
        gone_on = {row["id"] for row in rows(folder, "tasks") if row["ended_at"] is None}
        key = "id" if table == "tasks" else "task_id"
        old = [row for row in rows(folder, table) if row[key] not in gone_on]
        assert [row for row in rows(again, table) if row[key] not in gone_on] == old, table
    assert rows(again, "events")[: len(rows(folder, "events"))] == rows(folder, "events")
    assert {name: show_task(back.database, back.logs, uids[name], ANONYMOUS).status for name in ENDED[:3]} == {
        "finished": Status.FINISHED,
        "failed": Status.FAILED,
        "cancelled": Status.CANCELLED,
    }
    assert back.logs.tail(uids["running"], 1) == "half of it\n"
    assert show_model(back.database, "weighty", ANONYMOUS).version == 2


def test_a_log_of_several_files_comes_back(harness: Harness, blank: Database, folder: Path, tmp_path: Path) -> None:
    held = harness.submit_and_claim()
    offset = 0
    for number in range(18):
        offset = harness.logs.append(held.uid, held.fence, offset, b"%d" % (number % 10) * 1024**2)
    harness.logs.append(held.uid, held.fence, offset, b"the end\n")
    take(harness, folder)
    _, back = bring_back(blank, tmp_path / "new", folder)
    assert b"".join(back.logs.read(held.uid, held.fence)) == b"".join(harness.logs.read(held.uid, held.fence))
    assert back.logs.tail(held.uid, held.fence).endswith("the end\n")


def test_what_had_not_ended_waits_again_under_a_fence_nobody_has(
    harness: Harness, blank: Database, folder: Path, tmp_path: Path
) -> None:
    uids = fill(harness)
    fences = {name: harness.row(uids[name]).fence for name in WAITING}
    take(harness, folder)
    _, back = bring_back(blank, tmp_path / "new", folder)
    for name in WAITING:
        row = back.row(uids[name])
        assert (row.status, row.fence, row.lease_owner) == (Status.QUEUED, fences[name] + FENCE_JUMP, None), name
    assert back.bells() == len(WAITING)
    row = back.row(uids["being cancelled"])
    assert (row.status, row.reason) == (Status.CANCELLED, Reason.CANCELLED)
    assert back.events(uids["running"])[-1] == ("running", "queued")
    back.all_events()


def test_who_held_a_task_before_the_restore_cannot_end_it_and_it_runs_again_to_its_end(
    harness: Harness, blank: Database, folder: Path, tmp_path: Path
) -> None:
    old = harness.submit_and_claim()
    harness.beat(old)
    take(harness, folder)
    _, back = bring_back(blank, tmp_path / "new", folder)
    late = back.upload(old, b"late")
    with pytest.raises(StaleFence):
        back.commit(old, late)
    with pytest.raises(StaleFence):
        back.beat(old)
    new = back.claim("bea")
    assert (new.uid, new.attempt, new.fence) == (old.uid, 2, old.fence + FENCE_JUMP + 1)
    with pytest.raises(StaleFence):
        back.commit(old, late)
    back.beat(new, Phase.RUNNING, "bea")
    back.commit(new, back.upload(new, b"output"))
    assert find_output(back.database, back.store, back.logs, new.uid, ANONYMOUS).size_bytes == len(b"output")
    assert [outcome for _, outcome in back.attempts(new.uid)] == ["lost", "finished"]


def test_who_hosted_a_replica_before_the_restore_does_not_win_and_its_deployment_starts_again(
    harness: Harness, blank: Database, folder: Path, tmp_path: Path
) -> None:
    fill(harness)
    (view,) = DeploymentHarness(harness).live("weighty")
    before = DeploymentHarness(harness).row(view.uid)
    take(harness, folder)
    assert len(rows(folder, "gateways")) == 1
    _, back = bring_back(blank, tmp_path / "new", folder)
    plane = DeploymentHarness(back)
    row = plane.row(view.uid)
    assert (row.status, row.reason, row.fence) == ("ended", "lost", before.fence + FENCE_JUMP)
    for act in (
        lambda: show_replica(back.database, view.uid, before.fence, HOSTING),
        lambda: beat_replica(
            back.database, view.uid, before.fence, ReplicaBeat(consumer="host", ready=True, address="a:1")
        ),
        lambda: end_replica(
            back.database, view.uid, before.fence, ReplicaEnd(consumer="host", reason=ReplicaReason.SURPLUS)
        ),
    ):
        with pytest.raises(StaleFence):
            act()
    with back.database.read() as session:
        assert session.scalars(select(GatewayRow)).all() == []
    shown = plane.show("weighty")
    assert (shown.failures, shown.serving.prefix, shown.serving.model_names) == (0, "p", ["a", "b"])
    plane.scale()
    assert plane.statuses("weighty") == ["wanted"]
    new = plane.claim("host")
    assert new.uid != view.uid
    plane.beat(new, consumer="host")
    assert plane.show("weighty").status == "ready"


def test_new_rows_follow_the_old_ones(harness: Harness, blank: Database, folder: Path, tmp_path: Path) -> None:
    known = harness.submit(key="a key")
    take(harness, folder)
    _, back = bring_back(blank, tmp_path / "new", folder)
    assert back.submit(key="a key") == known
    back.register("another")
    back.commit(back.claim(uid=back.submit("another")))
    # What answers nothing is sent with the end of its transaction.
    with pytest.raises(Exception, match="append-only"), back.database.write() as session:
        session.execute(Base.metadata.tables["events"].delete())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_flipped_byte_anywhere_in_a_backup_is_found_before_anything_changes(
    harness: Harness, sqlite_blank: Database, folder: Path, tmp_path: Path
) -> None:
    fill(harness)
    take(harness, folder)
    paths = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    for path in paths:
        whole = path.read_bytes()
        flip(path)
        if path.name == "manifest.json":
            # Its own bytes are not hashed: what they say is.
            path.write_bytes(whole.replace(b'"sha256": "', b'"sha256": "0', 1))
        with pytest.raises(BackupError, match="damaged"):
            restore(sqlite_blank, tmp_path / "new", folder)
        path.write_bytes(whole)
    assert not (tmp_path / "new").exists()
    bring_back(sqlite_blank, tmp_path / "new", folder)


def test_a_backup_that_broke_off_is_no_backup(
    harness: Harness, sqlite_blank: Database, folder: Path, tmp_path: Path
) -> None:
    take(harness, folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(BackupError, match=r"is not a complete backup: it has no manifest\.json"):
        restore(sqlite_blank, tmp_path / "new", folder)


def test_a_backup_of_a_newer_schema_is_refused_by_the_name_of_its_release(
    harness: Harness, sqlite_blank: Database, folder: Path, tmp_path: Path
) -> None:
    take(harness, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "revision": "9999", "release": "9.9.9"}))
    with pytest.raises(BackupError, match=r"schema 9999.*release 9\.9\.9 made it"):
        restore(sqlite_blank, tmp_path / "new", folder)


def test_a_backup_cannot_write_outside_of_the_data_folder(
    harness: Harness, sqlite_blank: Database, folder: Path, tmp_path: Path
) -> None:
    fill(harness)
    take(harness, folder)
    listed = (folder / "files.jsonl").read_text().replace("logs/", "logs/../../")
    (folder / "files.jsonl").write_text(listed)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["sha256"] = hash_file(folder / "files.jsonl")[0]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BackupError, match="outside its folder"):
        restore(sqlite_blank, tmp_path / "new", folder)


def test_a_restore_into_a_database_with_tables_is_refused(
    harness: Harness, blank: Database, folder: Path, tmp_path: Path
) -> None:
    take(harness, folder)
    upgrade(blank)
    with pytest.raises(BackupError, match="the database is not empty: it has the tables alembic_version, "):
        restore(blank, tmp_path / "new", folder)
    assert not (tmp_path / "new").exists()


def test_a_restore_into_a_data_folder_with_files_is_refused(
    harness: Harness, blank: Database, folder: Path, tmp_path: Path
) -> None:
    harness.submit()
    take(harness, folder)
    other = Harness(blank, ArchiveStore(tmp_path / "new" / "archives"), TaskLogs(tmp_path / "new" / "logs"))
    other.logs.append("a" * 64, 1, 0, b"old")
    with pytest.raises(BackupError, match=rf"is not empty: it has logs/{'a' * 64}-1\.log"):
        restore(blank, tmp_path / "new", folder)
    with blank.snapshot() as connection:
        assert inspect(connection).get_table_names() == []


def test_a_restore_that_broke_off_leaves_no_rows_and_says_so_to_the_next(
    harness: Harness, blank: Database, folder: Path, tmp_path: Path
) -> None:
    harness.submit()
    take(harness, folder)
    # Whole by its hashes, but a row refers to one that is not there: the database refuses it in mid-load.
    path = folder / "tables" / "model_versions.jsonl"
    path.write_text(path.read_text().replace('"model_id":1', '"model_id":999'))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tables"]["model_versions"]["sha256"] = hash_file(path)[0]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        restore(blank, tmp_path / "new", folder)
    with blank.snapshot() as connection:
        assert inspect(connection).get_table_names() == []
    with pytest.raises(BackupError, match=rf"{MARK}: an earlier restore was interrupted"):
        restore(blank, tmp_path / "new", folder)


def test_a_backup_wants_a_folder_of_its_own(harness: Harness, folder: Path) -> None:
    take(harness, folder)
    with pytest.raises(BackupError, match="is not empty"):
        take(harness, folder)


def test_there_is_nothing_to_back_up_in_a_database_without_tables(
    sqlite_blank: Database, store: ArchiveStore, logs: TaskLogs, folder: Path
) -> None:
    with pytest.raises(BackupError, match="nothing to back up"):
        back_up(sqlite_blank, store, logs, folder)


@contextmanager
def in_threads(work: Callable[[], object], count: int) -> Iterator[None]:
    """Repeat `work` while the block is open; what it raises fails the test, unless the database was only too busy."""
    stopping, faults = threading.Event(), []

    def run() -> None:
        try:
            while not stopping.is_set():
                with suppress(ServiceUnavailable):
                    work()
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    assert not faults, faults


def test_a_backup_taken_while_tasks_come_and_end_is_of_one_moment(
    harness: Harness, blank: Database, folder: Path, tmp_path: Path
) -> None:
    def work() -> None:
        harness.submit()
        held = harness.claim()
        harness.beat(held)
        harness.commit(held)

    for _ in range(20):
        work()
    with in_threads(work, 3):
        manifest = take(harness, folder)
    assert manifest.tables["tasks"].lines >= 20
    assert (manifest.removed, manifest.damaged) == (0, 0)
    kept = {f"archives/{row['key']}": row["sha256"] for row in rows(folder, "archives")}
    assert {path: sha for path, sha in files(folder).items() if path.startswith("archives/")} == kept
    _, back = bring_back(blank, tmp_path / "new", folder)
    told = back.all_events()
    for row in rows(folder, "tasks"):
        assert told[row["uid"]][0] == "queued"
        assert row["status"] in told[row["uid"]]


class _ReadsLate(ArchiveStore):
    """An archive store that lets something happen before the first archive is read."""

    def __init__(self, root: Path, first: Callable[[], object]) -> None:
        super().__init__(root)
        self._first: Callable[[], object] | None = first

    def path(self, key: str) -> Path:
        if self._first is not None:
            first, self._first = self._first, None
            first()
        return super().path(key)


def test_what_goes_between_rows_and_files_is_listed_as_removed(
    harness: Harness, sqlite_blank: Database, folder: Path, tmp_path: Path
) -> None:
    done, waiting = harness.submit_and_claim(), harness.submit()
    harness.commit(done)

    def remove() -> None:
        for uid in (done.uid, waiting):
            delete_task(harness.database, uid, ANONYMOUS)
        Janitor(harness.database, harness.store, harness.logs, keep_finished_for=30 * DAY).step()

    store = _ReadsLate(tmp_path / "data" / "archives", remove)
    manifest = back_up(harness.database, store, harness.logs, folder)
    assert (manifest.removed, manifest.damaged) == (3, 0)
    restored, back = bring_back(sqlite_blank, tmp_path / "new", folder)
    assert restored.restarted == 0
    with pytest.raises(OutputMissing):
        find_output(back.database, back.store, back.logs, done.uid, ANONYMOUS)
    with pytest.raises(TaskFailed, match="does not hold this task's input"):
        find_output(back.database, back.store, back.logs, waiting, ANONYMOUS)
    assert back.row(waiting).reason == Reason.INFRASTRUCTURE


def test_archives_that_rotted_on_the_server_are_named_and_left_out(
    harness: Harness, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = (harness.submit() for _ in range(3))
    flip(harness.store.path(f"inputs/{first}.zip"))
    harness.store.remove(f"inputs/{second}.zip")
    manifest = take(harness, folder)
    assert (manifest.removed, manifest.damaged) == (0, 2)
    assert [path for path in files(folder) if path.startswith("archives/")] == [f"archives/inputs/{third}.zip"]
    assert first in caplog.text
    assert second in caplog.text


def test_a_migration_waits_until_a_backup_has_read_the_rows(postgres_url: str) -> None:
    database, other = Database(postgres_url), Database(postgres_url)
    try:
        with database.snapshot(), other.write() as session:
            session.execute(text("SET LOCAL lock_timeout = 200"))
            with pytest.raises(OperationalError, match="lock timeout"):
                session.execute(text("ALTER TABLE tasks ADD COLUMN later integer"))
            session.rollback()
    finally:
        database.close()
        other.close()
