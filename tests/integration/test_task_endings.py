"""How a task ends: committed, failed, given back, cancelled, deleted. The same on PostgreSQL and on SQLite."""

from datetime import datetime, timedelta

import pytest

from contract.errors import InvalidRequest, OutputMissing, StaleFence, TaskFailed, TaskNotFound, TaskPending
from contract.schemas import Commit
from contract.statuses import Phase, Reason, Status
from private_api.callers import ANONYMOUS
from private_api.janitor import Janitor
from private_api.tasks.cancel import cancel_task, delete_task
from private_api.tasks.limits import MAX_INFRASTRUCTURE_FAILURES, backoff
from private_api.tasks.read import find_output, show_task
from tests.integration.task_bench import Bench


def clean(bench: Bench) -> int:
    return Janitor(bench.database, bench.store, bench.logs, keep_finished_for=timedelta(days=30)).step()


def input_file_exists(bench: Bench, uid: str) -> bool:
    return bench.store.path(f"inputs/{uid}.zip").exists()


def test_a_commit_makes_the_uploaded_file_the_output(bench: Bench) -> None:
    held = bench.submit_and_claim()
    commit = bench.upload(held, b"the result")
    assert show_task(bench.database, bench.logs, held.uid, ANONYMOUS).status is Status.LEASED
    assert bench.commit(held, commit).status is Status.FINISHED
    output = find_output(bench.database, bench.store, bench.logs, held.uid, ANONYMOUS)
    assert bench.store.path(output.key).read_bytes() == b"the result"
    assert (output.sha256, output.size_bytes) == (commit.sha256, len(b"the result"))
    row = bench.row(held.uid)
    assert (row.status, row.exit_code, row.lease_owner, row.phase) == (Status.FINISHED, 0, None, None)


def test_a_repeated_commit_answers_the_same(bench: Bench) -> None:
    held = bench.submit_and_claim()
    commit = bench.upload(held)
    answers = [bench.commit(held, commit) for _ in range(3)]
    assert {answer.status for answer in answers} == {Status.FINISHED}
    assert bench.events(held.uid)[-1] == (Status.LEASED, Status.FINISHED)
    assert len(bench.events(held.uid)) == 3


def test_a_second_commit_of_another_output_is_refused(bench: Bench) -> None:
    held = bench.submit_and_claim()
    bench.commit(held)
    with pytest.raises(StaleFence):
        bench.commit(held, bench.upload(held, b"another"))
    assert find_output(bench.database, bench.store, bench.logs, held.uid, ANONYMOUS).size_bytes == len(b"output")


def test_a_commit_of_what_was_never_uploaded_is_refused_and_the_task_stays_held(bench: Bench) -> None:
    held = bench.submit_and_claim()
    commit = bench.upload(held)
    for wrong in (
        Commit(consumer="ada", sha256="0" * 64, size_bytes=commit.size_bytes),
        commit.model_copy(update={"size_bytes": commit.size_bytes + 1}),
    ):
        with pytest.raises(InvalidRequest, match="was uploaded"):
            bench.commit(held, wrong)
    assert bench.row(held.uid).status == Status.LEASED


def test_an_output_uploaded_under_an_older_fence_is_never_the_result(bench: Bench) -> None:
    old = bench.submit_and_claim()
    commit = bench.upload(old)
    bench.release(old, blameless=True)
    new = bench.claim("bob")
    with pytest.raises(StaleFence):
        bench.commit(old, commit)
    with pytest.raises(InvalidRequest):
        bench.commit(new, commit)
    assert bench.commit(new).status is Status.FINISHED


def test_a_cancel_wins_over_a_later_commit(bench: Bench) -> None:
    held = bench.submit_and_claim()
    cancel_task(bench.database, held.uid, ANONYMOUS)
    commit = bench.upload(held)
    assert [bench.commit(held, commit).status for _ in range(2)] == [Status.CANCELLED] * 2
    with pytest.raises(TaskFailed, match="cancelled by its owner"):
        find_output(bench.database, bench.store, bench.logs, held.uid, ANONYMOUS)


def test_a_failure_ends_the_task_with_its_reason_and_the_end_of_its_log(bench: Bench) -> None:
    held = bench.submit_and_claim()
    bench.logs.append(held.uid, held.fence, 0, b"no such file\n")
    assert [bench.fail(held).status for _ in range(3)] == [Status.FAILED] * 3
    view = show_task(bench.database, bench.logs, held.uid, ANONYMOUS)
    assert (view.reason, view.exit_code) == (Reason.EXIT_CODE, 3)
    assert (view.detail, view.log_tail) == ("it broke", "no such file\n")
    with pytest.raises(StaleFence):
        bench.fail(held, Reason.OUT_OF_MEMORY)
    with pytest.raises(StaleFence):
        bench.commit(held)
    assert bench.attempts(held.uid) == [(1, Reason.EXIT_CODE)]


def test_a_failure_of_a_cancelled_task_is_a_cancellation_however_often_it_is_told(bench: Bench) -> None:
    held = bench.submit_and_claim()
    cancel_task(bench.database, held.uid, ANONYMOUS)
    assert [bench.fail(held).status for _ in range(2)] == [Status.CANCELLED] * 2
    assert bench.row(held.uid).reason == Reason.CANCELLED


def test_a_holder_that_reports_a_cancellation_ends_the_task_as_cancelled(bench: Bench) -> None:
    held = bench.submit_and_claim()
    cancel_task(bench.database, held.uid, ANONYMOUS)
    assert bench.beat(held).cancel
    assert bench.fail(held, Reason.CANCELLED, exit_code=None).status is Status.CANCELLED


def test_a_blameless_release_queues_the_task_at_once(bench: Bench) -> None:
    held = bench.submit_and_claim()
    for _ in range(MAX_INFRASTRUCTURE_FAILURES + 1):
        assert bench.release(held, blameless=True).status is Status.QUEUED
        with pytest.raises(StaleFence):
            bench.beat(held)
        held = bench.claim(uid=held.uid)
    assert bench.row(held.uid).infrastructure_failures == 0


def test_a_release_moves_the_fence_so_that_the_holder_cannot_come_back(bench: Bench) -> None:
    held = bench.submit_and_claim()
    bench.release(held, blameless=True)
    assert bench.row(held.uid).fence == held.fence + 1
    for action in (bench.beat, bench.commit, bench.fail, bench.release):
        with pytest.raises(StaleFence):
            action(held)
    assert bench.attempts(held.uid) == [(1, "released")]


def test_each_infrastructure_failure_makes_the_task_wait_longer_and_the_eighth_ends_it(bench: Bench) -> None:
    uid = bench.submit()
    for failures in range(1, MAX_INFRASTRUCTURE_FAILURES):
        held = bench.claim(uid=uid)
        assert bench.release(held).status is Status.QUEUED
        assert bench.try_claim(uid=uid) is None
        waits = bench.row(uid).not_before - _now(bench)
        assert backoff(failures) - timedelta(seconds=2) < waits <= backoff(failures)
        bench.shift(uid, not_before=-backoff(failures))
    assert bench.release(bench.claim(uid=uid)).status is Status.FAILED
    row = bench.row(uid)
    assert (row.reason, row.crashes, row.attempts) == (Reason.INFRASTRUCTURE, 0, 8)
    assert "the engine is away" in (row.detail or "")


def test_backoff_doubles_from_10_seconds_up_to_10_minutes() -> None:
    assert [backoff(n).total_seconds() for n in range(1, 9)] == [10, 20, 40, 80, 160, 320, 600, 600]


def test_a_queued_task_is_cancelled_at_once(bench: Bench) -> None:
    uid = bench.submit()
    cancel_task(bench.database, uid, ANONYMOUS)
    row = bench.row(uid)
    assert (row.status, row.reason) == (Status.CANCELLED, Reason.CANCELLED)
    assert bench.try_claim(uid=uid) is None
    cancel_task(bench.database, uid, ANONYMOUS)
    assert bench.row(uid).ended_at == row.ended_at


def test_a_held_task_is_cancelled_by_way_of_its_holder(bench: Bench) -> None:
    held = bench.submit_and_claim()
    assert not bench.beat(held).cancel
    cancel_task(bench.database, held.uid, ANONYMOUS)
    view = show_task(bench.database, bench.logs, held.uid, ANONYMOUS)
    assert (view.status, view.phase, view.cancel_requested) == (Status.RUNNING, Phase.RUNNING, True)
    assert bench.beat(held).cancel


def test_a_cancelled_task_whose_holder_dies_or_gives_it_back_is_not_queued_again(bench: Bench) -> None:
    died, released = bench.submit_and_claim(), bench.submit_and_claim()
    for held in (died, released):
        cancel_task(bench.database, held.uid, ANONYMOUS)
    bench.expire(died.uid)
    bench.release(released)
    assert {bench.row(held.uid).status for held in (died, released)} == {Status.CANCELLED}


def test_a_finished_task_stays_finished_when_it_is_cancelled(bench: Bench) -> None:
    held = bench.submit_and_claim()
    bench.commit(held)
    cancel_task(bench.database, held.uid, ANONYMOUS)
    row = bench.row(held.uid)
    assert (row.status, row.cancel_at) == (Status.FINISHED, None)


def test_a_task_that_never_was_cannot_be_cancelled_or_deleted(bench: Bench) -> None:
    for action in (cancel_task, delete_task):
        with pytest.raises(TaskNotFound):
            action(bench.database, "0" * 64, ANONYMOUS)


@pytest.mark.parametrize("stage", ["queued", "finished", "failed", "cancelled"])
def test_a_task_that_is_not_held_is_deleted_with_its_files(bench: Bench, stage: str) -> None:
    uid = bench.submit()
    if stage == "cancelled":
        cancel_task(bench.database, uid, ANONYMOUS)
    elif stage != "queued":
        held = bench.claim()
        bench.logs.append(uid, held.fence, 0, b"a line\n")
        assert (bench.commit(held) if stage == "finished" else bench.fail(held)).status == stage
    outputs = list(bench.store.path("outputs").rglob("*.zip"))
    delete_task(bench.database, uid, ANONYMOUS)
    delete_task(bench.database, uid, ANONYMOUS)
    for look in (show_task, lambda *_: cancel_task(bench.database, uid, ANONYMOUS)):
        with pytest.raises(TaskNotFound):
            look(bench.database, bench.logs, uid, ANONYMOUS)
    assert clean(bench) == 1 + len(outputs)
    assert not input_file_exists(bench, uid)
    assert not any(path.exists() for path in outputs)
    assert bench.logs.tail(uid, 1) == ""
    assert clean(bench) == 0


def test_a_held_task_that_is_deleted_keeps_its_input_until_its_holder_stopped(bench: Bench) -> None:
    held = bench.submit_and_claim()
    delete_task(bench.database, held.uid, ANONYMOUS)
    with pytest.raises(TaskNotFound):
        find_output(bench.database, bench.store, bench.logs, held.uid, ANONYMOUS)
    assert clean(bench) == 0
    assert input_file_exists(bench, held.uid)
    assert bench.beat(held).cancel
    assert bench.commit(held).status is Status.CANCELLED
    assert clean(bench) == 1
    assert not input_file_exists(bench, held.uid)


def test_a_poll_tells_where_the_task_stands(bench: Bench) -> None:
    uid = bench.submit()

    def poll_fields(error: type[Exception]) -> dict[str, object]:
        with pytest.raises(error) as caught:
            find_output(bench.database, bench.store, bench.logs, uid, ANONYMOUS)
        fields: dict[str, object] = caught.value.fields  # type: ignore[attr-defined]
        return fields

    assert poll_fields(TaskPending) == {"status": "queued", "position": 0, "attempt": 0}
    held = bench.claim()
    assert poll_fields(TaskPending) == {"status": "leased", "attempt": 1}
    bench.expire(uid)
    assert poll_fields(TaskPending) == {"status": "queued", "position": 0, "attempt": 1}
    assert show_task(bench.database, bench.logs, uid, ANONYMOUS).phase is None
    bench.commit(held)
    bench.store.remove(find_output(bench.database, bench.store, bench.logs, uid, ANONYMOUS).key)
    assert poll_fields(OutputMissing) == {"status": "finished"}


def _now(bench: Bench) -> datetime:
    with bench.database.read() as session:
        return bench.database.now(session)
