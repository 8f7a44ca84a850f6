"""How a task ends: committed, failed, given back, cancelled, deleted. The same on PostgreSQL and on SQLite."""

from datetime import timedelta

import pytest

from contract.access import ANONYMOUS
from contract.errors import InvalidRequest, OutputMissing, StaleFence, TaskFailed, TaskNotFound, TaskPending
from contract.schemas import Commit
from contract.statuses import Phase, Reason, Status
from private_api.loops.janitor import Janitor
from private_api.placement.outlook import find_output, show_task
from private_api.tasks.cancel import cancel_task, delete_task
from private_api.tasks.limits import MAX_INFRASTRUCTURE_FAILURES, backoff
from tests.integration.task_harness import Harness

HOUR = timedelta(hours=1)


def clean(harness: Harness) -> int:
    return Janitor(harness.database, harness.store, harness.logs, keep_finished_for=timedelta(days=30)).step()


def input_file_exists(harness: Harness, uid: str) -> bool:
    return harness.store.path(f"inputs/{uid}.zip").exists()


def test_a_commit_makes_the_uploaded_file_the_output(harness: Harness) -> None:
    held = harness.submit_and_claim()
    commit = harness.upload(held, b"the result")
    assert show_task(harness.database, harness.logs, held.uid, ANONYMOUS).status is Status.LEASED
    assert harness.commit(held, commit).status is Status.FINISHED
    output = find_output(harness.database, harness.store, harness.logs, held.uid, ANONYMOUS)
    assert harness.store.path(output.key).read_bytes() == b"the result"
    assert (output.sha256, output.size_bytes) == (commit.sha256, len(b"the result"))
    row = harness.row(held.uid)
    assert (row.status, row.exit_code, row.lease_owner, row.phase) == (Status.FINISHED, 0, None, None)


def test_a_repeated_commit_answers_the_same(harness: Harness) -> None:
    held = harness.submit_and_claim()
    commit = harness.upload(held)
    answers = [harness.commit(held, commit) for _ in range(3)]
    assert {answer.status for answer in answers} == {Status.FINISHED}
    assert harness.events(held.uid)[-1] == (Status.LEASED, Status.FINISHED)
    assert len(harness.events(held.uid)) == 3


def test_a_second_commit_of_another_output_is_refused(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.commit(held)
    with pytest.raises(StaleFence):
        harness.commit(held, harness.upload(held, b"another"))
    assert find_output(harness.database, harness.store, harness.logs, held.uid, ANONYMOUS).size_bytes == len(b"output")


def test_a_commit_of_what_was_never_uploaded_is_refused_and_the_task_stays_held(harness: Harness) -> None:
    held = harness.submit_and_claim()
    commit = harness.upload(held)
    for wrong in (
        Commit(consumer="ada", sha256="0" * 64, size_bytes=commit.size_bytes),
        commit.model_copy(update={"size_bytes": commit.size_bytes + 1}),
    ):
        with pytest.raises(InvalidRequest, match="was uploaded"):
            harness.commit(held, wrong)
    assert harness.row(held.uid).status == Status.LEASED


def test_an_output_uploaded_under_an_older_fence_is_never_the_result(harness: Harness) -> None:
    old = harness.submit_and_claim()
    commit = harness.upload(old)
    harness.release(old, blameless=True)
    new = harness.claim("bob")
    with pytest.raises(StaleFence):
        harness.commit(old, commit)
    with pytest.raises(InvalidRequest):
        harness.commit(new, commit)
    assert harness.commit(new).status is Status.FINISHED


def test_a_cancel_wins_over_a_later_commit(harness: Harness) -> None:
    held = harness.submit_and_claim()
    cancel_task(harness.database, held.uid, ANONYMOUS)
    commit = harness.upload(held)
    assert [harness.commit(held, commit).status for _ in range(2)] == [Status.CANCELLED] * 2
    with pytest.raises(TaskFailed, match="cancelled by its owner"):
        find_output(harness.database, harness.store, harness.logs, held.uid, ANONYMOUS)


def test_a_failure_ends_the_task_with_its_reason_and_the_end_of_its_log(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.logs.append(held.uid, held.fence, 0, b"no such file\n")
    assert [harness.fail(held).status for _ in range(3)] == [Status.FAILED] * 3
    view = show_task(harness.database, harness.logs, held.uid, ANONYMOUS)
    assert (view.reason, view.exit_code) == (Reason.EXIT_CODE, 3)
    assert (view.detail, view.log_tail) == ("it broke", "no such file\n")
    with pytest.raises(StaleFence):
        harness.fail(held, Reason.OUT_OF_MEMORY)
    with pytest.raises(StaleFence):
        harness.commit(held)
    assert harness.attempts(held.uid) == [(1, Reason.EXIT_CODE)]


def test_a_failure_of_a_cancelled_task_is_a_cancellation_however_often_it_is_told(harness: Harness) -> None:
    held = harness.submit_and_claim()
    cancel_task(harness.database, held.uid, ANONYMOUS)
    assert [harness.fail(held).status for _ in range(2)] == [Status.CANCELLED] * 2
    assert harness.row(held.uid).reason == Reason.CANCELLED


def test_a_holder_that_reports_a_cancellation_ends_the_task_as_cancelled(harness: Harness) -> None:
    held = harness.submit_and_claim()
    cancel_task(harness.database, held.uid, ANONYMOUS)
    assert harness.beat(held).cancel
    assert harness.fail(held, Reason.CANCELLED, exit_code=None).status is Status.CANCELLED


def test_a_blameless_release_queues_the_task_at_once(harness: Harness) -> None:
    held = harness.submit_and_claim()
    for _ in range(MAX_INFRASTRUCTURE_FAILURES + 1):
        assert harness.release(held, blameless=True).status is Status.QUEUED
        with pytest.raises(StaleFence):
            harness.beat(held)
        held = harness.claim(uid=held.uid)
    assert harness.row(held.uid).infrastructure_failures == 0


def test_a_release_moves_the_fence_so_that_the_holder_cannot_come_back(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.release(held, blameless=True)
    assert harness.row(held.uid).fence == held.fence + 1
    for action in (harness.beat, harness.commit, harness.fail, harness.release):
        with pytest.raises(StaleFence):
            action(held)
    assert harness.attempts(held.uid) == [(1, "released")]


def test_each_infrastructure_failure_makes_the_task_wait_longer_and_the_eighth_ends_it(harness: Harness) -> None:
    uid = harness.submit()
    for failures in range(1, MAX_INFRASTRUCTURE_FAILURES):
        held = harness.claim(uid=uid)
        before = harness.now()
        assert harness.release(held).status is Status.QUEUED
        assert before + backoff(failures) <= harness.row(uid).not_before <= harness.now() + backoff(failures)
        # However long the machine takes to look.
        harness.shift(uid, not_before=HOUR)
        assert harness.try_claim(uid=uid) is None
        harness.shift(uid, not_before=-HOUR - backoff(failures))
    assert harness.release(harness.claim(uid=uid)).status is Status.FAILED
    row = harness.row(uid)
    assert (row.reason, row.crashes, row.attempts) == (Reason.INFRASTRUCTURE, 0, 8)
    assert "the engine is away" in (row.detail or "")


def test_backoff_doubles_from_10_seconds_up_to_10_minutes() -> None:
    assert [backoff(n).total_seconds() for n in range(1, 9)] == [10, 20, 40, 80, 160, 320, 600, 600]


def test_a_queued_task_is_cancelled_at_once(harness: Harness) -> None:
    uid = harness.submit()
    cancel_task(harness.database, uid, ANONYMOUS)
    row = harness.row(uid)
    assert (row.status, row.reason) == (Status.CANCELLED, Reason.CANCELLED)
    assert harness.try_claim(uid=uid) is None
    cancel_task(harness.database, uid, ANONYMOUS)
    assert harness.row(uid).ended_at == row.ended_at


def test_a_held_task_is_cancelled_by_way_of_its_holder(harness: Harness) -> None:
    held = harness.submit_and_claim()
    assert not harness.beat(held).cancel
    cancel_task(harness.database, held.uid, ANONYMOUS)
    view = show_task(harness.database, harness.logs, held.uid, ANONYMOUS)
    assert (view.status, view.phase, view.cancel_requested) == (Status.RUNNING, Phase.RUNNING, True)
    assert harness.beat(held).cancel


def test_a_cancelled_task_whose_holder_dies_or_gives_it_back_is_not_queued_again(harness: Harness) -> None:
    died, released = harness.submit_and_claim(), harness.submit_and_claim()
    for held in (died, released):
        cancel_task(harness.database, held.uid, ANONYMOUS)
    harness.expire(died.uid)
    harness.release(released)
    assert {harness.row(held.uid).status for held in (died, released)} == {Status.CANCELLED}


def test_a_finished_task_stays_finished_when_it_is_cancelled(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.commit(held)
    cancel_task(harness.database, held.uid, ANONYMOUS)
    row = harness.row(held.uid)
    assert (row.status, row.cancel_at) == (Status.FINISHED, None)


def test_a_task_that_never_was_cannot_be_cancelled_or_deleted(harness: Harness) -> None:
    for action in (cancel_task, delete_task):
        with pytest.raises(TaskNotFound):
            action(harness.database, "0" * 64, ANONYMOUS)


@pytest.mark.parametrize("stage", ["queued", "finished", "failed", "cancelled"])
def test_a_task_that_is_not_held_is_deleted_with_its_files(harness: Harness, stage: str) -> None:
    uid = harness.submit()
    if stage == "cancelled":
        cancel_task(harness.database, uid, ANONYMOUS)
    elif stage != "queued":
        held = harness.claim()
        harness.logs.append(uid, held.fence, 0, b"a line\n")
        assert (harness.commit(held) if stage == "finished" else harness.fail(held)).status == stage
    outputs = list(harness.store.path("outputs").rglob("*.zip"))
    delete_task(harness.database, uid, ANONYMOUS)
    delete_task(harness.database, uid, ANONYMOUS)
    for look in (show_task, lambda *_: cancel_task(harness.database, uid, ANONYMOUS)):
        with pytest.raises(TaskNotFound):
            look(harness.database, harness.logs, uid, ANONYMOUS)
    assert clean(harness) == 1 + len(outputs)
    assert not input_file_exists(harness, uid)
    assert not any(path.exists() for path in outputs)
    assert harness.logs.tail(uid, 1) == ""
    assert clean(harness) == 0


def test_a_held_task_that_is_deleted_keeps_its_input_until_its_holder_stopped(harness: Harness) -> None:
    held = harness.submit_and_claim()
    delete_task(harness.database, held.uid, ANONYMOUS)
    with pytest.raises(TaskNotFound):
        find_output(harness.database, harness.store, harness.logs, held.uid, ANONYMOUS)
    assert clean(harness) == 0
    assert input_file_exists(harness, held.uid)
    assert harness.beat(held).cancel
    assert harness.commit(held).status is Status.CANCELLED
    assert clean(harness) == 1
    assert not input_file_exists(harness, held.uid)


def test_a_poll_tells_where_the_task_stands(harness: Harness) -> None:
    uid = harness.submit()

    def poll_fields(error: type[Exception]) -> dict[str, object]:
        with pytest.raises(error) as caught:
            find_output(harness.database, harness.store, harness.logs, uid, ANONYMOUS)
        fields: dict[str, object] = caught.value.fields  # type: ignore[attr-defined]
        assert bool(fields.pop("wait_detail", None)) == ("waits_for" in fields)
        return fields

    queued = {"status": "queued", "position": 0}
    assert poll_fields(TaskPending) == {**queued, "attempt": 0, "waits_for": "consumer"}
    held = harness.claim()
    assert poll_fields(TaskPending) == {"status": "leased", "attempt": 1, "waits_for": "preparation"}
    harness.expire(uid)
    assert poll_fields(TaskPending) == {**queued, "attempt": 1, "waits_for": "free_consumer"}
    assert show_task(harness.database, harness.logs, uid, ANONYMOUS).phase is None
    harness.commit(held)
    harness.store.remove(find_output(harness.database, harness.store, harness.logs, uid, ANONYMOUS).key)
    assert poll_fields(OutputMissing) == {"status": "finished"}
