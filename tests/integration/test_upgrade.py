"""A database that an earlier release filled goes on under this one, whatever revision it was at.

`schemas/<revision>.json` holds rows as the release of that revision writes them; a revision without a file of its own
takes those of the newest one before it. A migration that only adds needs no new file: then the test also says that the
release before can go on writing while the new schema is there already. A migration that takes something away needs
one, and `docs/operations/upgrade.md` says when it may.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from contract.access import ANONYMOUS
from contract.broker import CPU_QUEUE
from contract.broker.memory import InMemoryBroker
from contract.errors import TaskFailed
from contract.model_versions import VersionListQuery
from contract.quotas import Quota
from contract.schemas import Assignment
from contract.statuses import Phase, Status
from private_api.archives import ArchiveStore
from private_api.backup.restore import restore
from private_api.backup.write import back_up
from private_api.database import Database
from private_api.loops.dispatcher import Dispatcher
from private_api.migrate import current_revision, known_revisions, upgrade
from private_api.model_versions import list_versions
from private_api.models import list_models, show_model
from private_api.placement.outlook import find_output, show_task
from private_api.quotas.usage import read_usage
from private_api.task_logs import TaskLogs
from private_api.tasks.attempts import show_assignment
from tests.integration.task_harness import SIZES, Harness

SCHEMAS = Path(__file__).parent / "schemas"
REVISIONS = known_revisions()
# From the first one on every migration meets the rows. The others differ in which of them met none.
_FEW = {REVISIONS[0], REVISIONS[len(REVISIONS) // 2], *REVISIONS[-2:]}
EVERY_REVISION = pytest.mark.parametrize(
    "revision", [pytest.param(name, marks=[] if name in _FEW else [pytest.mark.long]) for name in REVISIONS]
)


@pytest.fixture
def old(empty_database_url: str, store: ArchiveStore, logs: TaskLogs) -> Iterator[Harness]:
    """The rules over a database that has no tables yet."""
    database = Database(empty_database_url)
    yield Harness(database, store, logs)
    database.close()


def rows_of(revision: str) -> dict[str, list[dict[str, Any]]]:
    """The rows that a release of this revision writes."""
    known = REVISIONS[: REVISIONS.index(revision) + 1]
    newest = [path for name in known if (path := SCHEMAS / f"{name}.json").exists()][-1]
    rows: dict[str, list[dict[str, Any]]] = json.loads(newest.read_text())
    return rows


def fill(harness: Harness, revision: str) -> None:
    """Insert them as they stand, without this release's code; an archive's bytes are its key."""
    for archive in rows_of(revision)["archives"]:
        harness.store.path(archive["key"]).write_text(archive["key"])
    with harness.database.write() as session:
        for table, rows in rows_of(revision).items():
            for row in rows:
                names = ", ".join(row)
                values = ", ".join(f":{name}" for name in row)
                session.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)  # noqa: S608
        if not harness.database.is_sqlite:
            # The rows bring their own numbers.
            for table in ("archives", "models", "model_versions", "tasks"):
                session.execute(text(f"SELECT setval('{table}_id_seq', 100)"))


def check_goes_on(harness: Harness) -> None:
    """Everything that the services do, on the old rows and on new ones."""
    assert [model.human_readable_id for model in list_models(harness.database, ANONYMOUS, limit=9, after=None)] == [
        "old"
    ]
    (version,) = list_versions(harness.database, "old", VersionListQuery())
    assert (version.version, version.default, version.retired, version.strict_output) == (1, True, False, False)
    model = show_model(harness.database, "old", ANONYMOUS)
    assert (model.shared_memory_bytes, model.temporary_bytes, model.pids_limit, model.cpus) == (None, None, None, None)
    assert find_output(harness.database, harness.store, harness.logs, "cccc", ANONYMOUS).key == "outputs/c.zip"
    finished = show_task(harness.database, harness.logs, "cccc", ANONYMOUS)
    assert (finished.warnings, finished.warning_count) == ([], 0)
    with pytest.raises(TaskFailed, match="exit code 3"):
        find_output(harness.database, harness.store, harness.logs, "dddd", ANONYMOUS)
    # The consumer that holds a task asks whether it still does, as it does after its own restart, and ends it.
    held = show_assignment(harness.database, "bbbb", 3, SIZES)
    harness.beat(held)
    commit_and_check(harness, held)
    # The bell that was waiting rings, and the task runs from its claim to its end.
    broker = InMemoryBroker()
    assert Dispatcher(harness.database, broker).step() == 1
    assert broker.receive([CPU_QUEUE], 0) is not None
    claimed = harness.claim(uid="aaaa")
    assert (claimed.uid, claimed.fence) == ("aaaa", 1)
    harness.beat(claimed, Phase.RUNNING)
    commit_and_check(harness, claimed)
    commit_and_check(harness, harness.claim(uid=harness.submit("old")))
    harness.reap()


def commit_and_check(harness: Harness, held: Assignment) -> None:
    harness.commit(held)
    assert show_task(harness.database, harness.logs, held.uid, ANONYMOUS).status == Status.FINISHED
    assert find_output(harness.database, harness.store, harness.logs, held.uid, ANONYMOUS).size_bytes == len(b"output")


@EVERY_REVISION
def test_rows_of_every_earlier_revision_go_on_after_the_upgrade(old: Harness, revision: str) -> None:
    upgrade(old.database, revision)
    fill(old, revision)
    upgrade(old.database)
    check_goes_on(old)


def test_what_an_owner_stored_before_there_were_quotas_is_counted(old: Harness) -> None:
    before = REVISIONS[REVISIONS.index("0028") - 1]
    upgrade(old.database, before)
    fill(old, before)
    with old.database.write() as session:
        session.execute(text("UPDATE tasks SET owner = 'ada' WHERE uid IN ('aaaa', 'cccc')"))
    upgrade(old.database)
    with old.database.read() as session:
        # Two inputs and an output; a finished task has no other.
        sizes = session.scalars(text("SELECT size_bytes FROM archives WHERE owner = 'ada' ORDER BY size_bytes")).all()
        assert sizes == [12, 12, 13]
        assert read_usage(session, "ada", Quota.STORED, old.database.now(session)) == sum(sizes)


@pytest.mark.parametrize("revision", REVISIONS[-2:])
def test_this_release_and_the_one_before_can_write_under_the_newest_schema(old: Harness, revision: str) -> None:
    upgrade(old.database)
    fill(old, revision)
    # A service that starts meanwhile finds nothing to do.
    upgrade(old.database)
    check_goes_on(old)


@EVERY_REVISION
def test_a_backup_of_every_earlier_revision_is_restored_and_upgraded(
    old: Harness, revision: str, tmp_path: Path
) -> None:
    upgrade(old.database, revision)
    fill(old, revision)
    assert back_up(old.database, old.store, old.logs, tmp_path / "backup").revision == revision
    database = Database(f"sqlite:///{tmp_path}/new.sqlite")
    try:
        assert restore(database, tmp_path / "new", tmp_path / "backup").restarted == 2
        new = Harness(database, ArchiveStore(tmp_path / "new" / "archives"), TaskLogs(tmp_path / "new" / "logs"))
        with database.snapshot() as connection:
            assert current_revision(connection) == REVISIONS[-1]
        for uid in ("aaaa", "bbbb"):
            commit_and_check(new, new.claim(uid=uid))
        assert find_output(new.database, new.store, new.logs, "cccc", ANONYMOUS).key == "outputs/c.zip"
    finally:
        database.close()
