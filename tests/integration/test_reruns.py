"""Reruns: whose they are, what they run, and that their input stays, on PostgreSQL and on SQLite."""

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from contract.access import ANONYMOUS, Caller, Scope
from contract.errors import IdempotencyConflict, InputMissing, TaskNotFound
from contract.reruns import RerunVersion
from private_api.archives import ArchiveStore, StoredArchive
from private_api.loops.janitor import Janitor
from private_api.loops.orphans import ORPHAN_AGE_S, Orphans
from private_api.placement.outlook import show_task
from private_api.tasks.attempts import attempt_archive
from private_api.tasks.cancel import delete_task
from private_api.tasks.history import list_events
from private_api.tasks.rerun import RerunOptions, rerun_task
from tests.integration.task_harness import Harness
from tests.zips import make_zip

ADA = Caller("ada", frozenset({Scope.SUBMIT}))
BOB = Caller("bob", frozenset({Scope.SUBMIT}))
OPERATOR = Caller("carol", frozenset({Scope.OPERATE, Scope.SUBMIT}))
FILES = {"scan.txt": b"a scan"}
KEPT = timedelta(days=30)


def rerun(
    harness: Harness,
    uid: str,
    caller: Caller = ADA,
    *,
    version: RerunVersion = RerunVersion.SAME,
    key: str | None = None,
    priority: int = 0,
) -> str:
    return rerun_task(harness.database, harness.store, uid, caller, RerunOptions(version, priority, key))


def clean(harness: Harness, keep_finished_for: timedelta = KEPT) -> int:
    return Janitor(harness.database, harness.store, harness.logs, keep_finished_for=keep_finished_for).step()


def ended(harness: Harness) -> str:
    held = harness.claim(uid=harness.submit(caller=ADA, files=FILES))
    harness.fail(held)
    return held.uid


def held_input(harness: Harness, uid: str) -> bytes:
    """What a consumer that claims the task gets."""
    held = harness.claim(uid=uid)
    archive = attempt_archive(harness.database, uid, held.fence, of_model=False)
    assert held.input.sha256 == archive.sha256
    return harness.store.path(archive.key).read_bytes()


def test_a_rerun_is_a_new_task_with_the_same_input_and_says_of_which(harness: Harness) -> None:
    first = ended(harness)
    bells = harness.bells()
    again = rerun(harness, first, priority=-3)
    assert harness.bells() == bells + 1
    view = show_task(harness.database, harness.logs, again, ADA)
    before = show_task(harness.database, harness.logs, first, ADA)
    assert again != first
    assert (view.status, view.owner, view.human_readable_id, view.model_version) == ("queued", "ada", "echo", 1)
    assert (view.rerun_of, view.priority, view.input) == (first, -3, before.input)
    assert (before.status, before.rerun_of) == ("failed", None)
    (event,) = list_events(harness.database, again, ADA)
    assert (event.old_status, event.new_status, event.rerun_of) == (None, "queued", first)
    assert held_input(harness, again) == make_zip(FILES)
    assert [event.rerun_of for event in list_events(harness.database, again, ADA)] == [first, None]


def test_the_input_is_stored_once_and_stays_while_any_of_its_tasks_needs_it(harness: Harness) -> None:
    first = ended(harness)
    again, later = rerun(harness, first), rerun(harness, first)
    paths = [harness.store.path(f"inputs/{uid}.zip") for uid in (first, again, later)]
    assert len({path.stat().st_ino for path in paths}) == 1
    delete_task(harness.database, first, ADA)
    assert clean(harness) == 1
    assert held_input(harness, again) == make_zip(FILES)
    # Retention of what has ended takes nothing from what waits.
    harness.fail(harness.claim(uid=later))
    assert clean(harness, timedelta(0)) == 1
    assert [path.exists() for path in paths] == [False, True, False]
    with pytest.raises(InputMissing):
        rerun(harness, later)


def test_a_rerun_may_run_again_after_the_first_task_is_gone(harness: Harness) -> None:
    again = rerun(harness, first := ended(harness))
    delete_task(harness.database, first, ADA)
    clean(harness)
    third = rerun(harness, again)
    assert show_task(harness.database, harness.logs, third, ADA).rerun_of == again
    assert held_input(harness, third) == make_zip(FILES)


def test_the_new_name_of_an_old_input_is_no_orphan_before_its_row_is_there(harness: Harness) -> None:
    first = ended(harness)
    path = harness.store.path(f"inputs/{first}.zip")
    os.utime(path, (time.time() - ORPHAN_AGE_S - 60,) * 2)
    harness.store.share(StoredArchive(f"inputs/{first}.zip", "0" * 64, path.stat().st_size), "inputs/new.zip")
    assert Orphans(harness.database, harness.store, harness.logs).step() == 0
    assert harness.store.path("inputs/new.zip").exists()


@pytest.mark.parametrize("fault", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_without_links_the_input_is_copied(store: ArchiveStore, monkeypatch: pytest.MonkeyPatch, fault: int) -> None:
    def refuse(_source: Path, _target: Path) -> None:
        raise OSError(fault, os.strerror(fault))

    upload = store.open_upload(None)
    upload.write(make_zip(FILES))
    first = store.keep(upload, "inputs/first.zip")
    monkeypatch.setattr(os, "link", refuse)
    copy = store.share(first, "inputs/copy.zip")
    assert (copy.sha256, copy.size_bytes) == (first.sha256, first.size_bytes)
    store.remove(first.key)
    assert store.path("inputs/copy.zip").read_bytes() == make_zip(FILES)
    assert list(store.stale_uploads(-1)) == []


def test_an_input_that_is_gone_is_said_so(harness: Harness) -> None:
    lost, removed = ended(harness), ended(harness)
    harness.store.path(f"inputs/{lost}.zip").unlink()
    with pytest.raises(InputMissing, match="missing on the server"):
        rerun(harness, lost)
    clean(harness, timedelta(0))
    with pytest.raises(InputMissing, match="no longer stored"):
        rerun(harness, removed)
    assert harness.bells() == 2


def test_the_same_version_stays_and_the_default_is_that_of_a_submission(harness: Harness) -> None:
    first = ended(harness)
    harness.register(replace=True)
    same, default = rerun(harness, first), rerun(harness, first, version=RerunVersion.DEFAULT)
    versions = [show_task(harness.database, harness.logs, uid, ADA).model_version for uid in (same, default)]
    assert versions == [1, 2]


def test_a_rerun_is_for_those_who_see_the_task_and_belongs_to_its_owner(harness: Harness) -> None:
    first = harness.submit(caller=ADA, files=FILES)
    for caller in (BOB, ANONYMOUS):
        with pytest.raises(TaskNotFound):
            rerun(harness, first, caller)
    assert harness.row(rerun(harness, first, OPERATOR)).owner == "ada"
    open_task = harness.submit()
    assert harness.row(rerun(harness, open_task, ANONYMOUS)).owner is None
    assert harness.row(rerun(harness, open_task, BOB)).owner == "bob"
    delete_task(harness.database, first, ADA)
    with pytest.raises(TaskNotFound):
        rerun(harness, first)


def test_a_repeated_rerun_is_the_same_task(harness: Harness) -> None:
    first, other = ended(harness), ended(harness)
    again = rerun(harness, first, key="k")
    assert rerun(harness, first, key="k") == again
    harness.register(replace=True)
    assert rerun(harness, first, key="k") == again
    assert rerun(harness, first) != again
    with pytest.raises(IdempotencyConflict):
        rerun(harness, other, key="k")
    newest = rerun(harness, first, key="newest", version=RerunVersion.DEFAULT)
    assert rerun(harness, first, key="newest", version=RerunVersion.DEFAULT) == newest
    with pytest.raises(IdempotencyConflict):
        rerun(harness, first, key="newest")
    # A submission's key is no rerun's.
    submitted = harness.submit(caller=ADA, files=FILES, key="s")
    with pytest.raises(IdempotencyConflict):
        rerun(harness, submitted, key="s")


def test_of_reruns_with_one_key_at_once_one_is_queued(harness: Harness) -> None:
    first = ended(harness)
    with ThreadPoolExecutor(8) as pool:
        uids = set(pool.map(lambda _: rerun(harness, first, key="k"), range(8)))
    assert len(uids) == 1
    assert len(list(harness.store.path("inputs").iterdir())) == 2
