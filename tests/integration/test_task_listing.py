"""Lists of tasks: who gets which by which filters, page by page and along an index, on PostgreSQL and on SQLite."""

import re
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import event

from contract.access import Caller, Scope
from contract.errors import InvalidRequest, PermissionDenied
from contract.overview import EVERYBODY, TaskListQuery
from contract.queries import TaskSubmission
from contract.statuses import Status
from private_api.database import Database
from private_api.tasks.cancel import cancel_task, delete_task
from private_api.tasks.listing import list_tasks
from tests.integration.task_harness import Harness

ADA = Caller("ada", frozenset({Scope.SUBMIT}))
BOB = Caller("bob", frozenset({Scope.SUBMIT}))
OPERATOR = Caller("carol", frozenset({Scope.OPERATE}))
ADMIN = Caller("dan", frozenset({Scope.ADMIN}))
DAY = timedelta(days=1)


def uids(harness: Harness, caller: Caller = OPERATOR, **query: Any) -> list[str]:
    return [task.uid for task in list_tasks(harness.database, caller, TaskListQuery(**query))]


def test_operate_sees_everybodys_tasks_page_by_page(harness: Harness) -> None:
    newest_first = [harness.submit(caller=caller) for caller in (ADA, BOB, ADMIN, ADA)][::-1]
    open_task = harness.submit()
    newest_first.insert(0, open_task)
    assert uids(harness) == uids(harness, ADMIN) == uids(harness, owner=EVERYBODY) == newest_first
    assert uids(harness, limit=2) == newest_first[:2]
    assert uids(harness, limit=2, after=newest_first[1]) == newest_first[2:4]
    delete_task(harness.database, newest_first[1], ADMIN)
    assert uids(harness, limit=2, after=newest_first[1]) == newest_first[2:4]
    assert newest_first[1] not in uids(harness)
    with pytest.raises(InvalidRequest, match="after"):
        uids(harness, after="0" * 64)


def test_an_owner_sees_its_own_and_is_told_that_it_may_not_see_others(harness: Harness) -> None:
    own = harness.submit(caller=ADA)
    others = harness.submit(caller=BOB)
    harness.submit()
    assert uids(harness, ADA) == uids(harness, ADA, owner="ada") == [own]
    assert uids(harness, OPERATOR, owner="bob") == [others]
    assert uids(harness, OPERATOR, owner="nobody") == []
    for owner in ("bob", "nobody", EVERYBODY):
        with pytest.raises(PermissionDenied, match="operate"):
            uids(harness, ADA, owner=owner)
    # A filter never widens what is visible.
    assert uids(harness, ADA, q="bob") == uids(harness, ADA, q=others) == []


def test_tasks_are_filtered_by_status_model_and_time(harness: Harness) -> None:
    harness.register("other")
    queued, failed, cancelled, old = (harness.submit(caller=ADA) for _ in range(4))
    of_other = harness.submit("other", caller=BOB)
    harness.register("other", replace=True)
    of_new_version = harness.submit("other", caller=BOB)
    harness.fail(harness.claim(uid=failed))
    cancel_task(harness.database, cancelled, ADA)
    harness.shift(old, created_at=-2 * DAY)

    assert uids(harness, status=["failed"]) == [failed]
    assert uids(harness, status=[Status.FAILED, Status.CANCELLED]) == [cancelled, failed]
    assert uids(harness, model="other") == uids(harness, model="Other") == [of_new_version, of_other]
    assert uids(harness, model="nothing") == []
    assert uids(harness, since=harness.now() - DAY) == [of_new_version, of_other, cancelled, failed, queued]
    assert uids(harness, since=harness.now() - 3 * DAY)[-1] == old
    assert uids(harness, since=harness.now() + DAY) == []
    assert uids(harness, status=["failed"], model="echo", owner="ada", since=harness.now() - DAY) == [failed]
    assert uids(harness, status=["failed"], model="other") == []


def test_tasks_are_found_by_text(harness: Harness) -> None:
    harness.register("100-_sure")
    first = harness.submit(caller=ADA)
    second = harness.submit("100-_sure", caller=BOB)
    harness.claim("host-a/gpu_0", uid=first)

    assert uids(harness, q="BOB") == [second]
    assert uids(harness, q="-_SURE") == [second]
    assert uids(harness, q=first[:10].upper()) == [first]
    assert uids(harness, q="gpu_0") == [first]
    # What LIKE would take for a wildcard stands for itself.
    assert uids(harness, q="%") == uids(harness, q="a_a") == []
    assert uids(harness, q=first[10:]) == []


def test_the_detail_of_another_owners_task_is_for_admins(harness: Harness) -> None:
    failed, open_task = harness.submit(caller=ADA), harness.submit()
    for uid in (failed, open_task):
        harness.fail(harness.claim(uid=uid))

    def details(caller: Caller) -> list[str | None]:
        return [task.detail for task in list_tasks(harness.database, caller, TaskListQuery(q="it broke"))]

    assert details(ADMIN) == ["it broke", "it broke"]
    assert details(ADA) == ["it broke"]
    assert details(OPERATOR) == ["it broke"]
    assert uids(harness, OPERATOR, q="broke") == [open_task]
    shown = {task.uid: task for task in list_tasks(harness.database, OPERATOR, TaskListQuery())}
    assert (shown[failed].detail, shown[failed].reason, shown[open_task].detail) == (None, "exit_code", "it broke")


def test_tasks_are_filtered_by_label(harness: Harness) -> None:
    first, second = (harness.submit(caller=ADA, label="study 7") for _ in range(2))
    of_bob = harness.submit(caller=BOB, label="study 7")
    open_task = harness.submit(label="study 7")
    harness.submit(caller=ADA, label="study 70")
    harness.submit(caller=ADA)
    assert uids(harness, ADA, label="study 7") == [second, first]
    assert uids(harness, ADA, label="Study 7") == uids(harness, ADA, label="study") == []
    assert uids(harness, ADMIN, label="study 7") == [open_task, of_bob, second, first]
    # A label may name a patient.
    assert uids(harness, OPERATOR, label="study 7") == [open_task]
    seen = {task.uid: task.label for task in list_tasks(harness.database, OPERATOR, TaskListQuery())}
    assert (seen[first], seen[open_task]) == (None, "study 7")
    seen = {task.uid: task.label for task in list_tasks(harness.database, ADA, TaskListQuery())}
    assert seen[first] == "study 7"


@pytest.mark.parametrize("label", ["", "x" * 129, "a\nb", "\x1b[2J"])
def test_a_label_that_would_spoil_a_list_is_refused(label: str) -> None:
    with pytest.raises(ValidationError, match="label"):
        TaskListQuery(label=label)
    with pytest.raises(ValidationError, match="label"):
        TaskSubmission(human_readable_id="echo", label=label)


def explain(database: Database, statement: str, parameters: Any) -> str:
    with database.engine.connect() as connection:
        if database.is_sqlite:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            return "\n".join(str(row[3]) for row in rows)
        # Few rows tempt it to read them all.
        for way in ("seqscan", "sort", "bitmapscan"):
            connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
        return "\n".join(str(row[0]) for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters))


@pytest.mark.parametrize(
    ("caller", "query", "index"),
    [
        (OPERATOR, {}, "tasks_newest"),
        (OPERATOR, {"since": "2026-01-01T00:00:00Z"}, "tasks_newest"),
        (OPERATOR, {"status": ["failed"]}, "tasks_newest_by_status"),
        (OPERATOR, {"owner": "ada"}, "tasks_newest_of_owner"),
        (ADMIN, {"label": "study 7"}, "tasks_newest_by_label"),
        (ADA, {}, "tasks_newest_of_owner"),
        (ADA, {"since": "2026-01-01T00:00:00Z"}, "tasks_newest_of_owner"),
    ],
)
def test_a_page_is_a_walk_along_an_index(harness: Harness, caller: Caller, query: Any, index: str) -> None:
    last = harness.submit(caller=ADA)
    seen: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_rest: object) -> None:
        seen.append((statement, parameters))

    event.listen(harness.database.engine, "before_cursor_execute", note)
    for after in (None, last):
        uids(harness, caller, after=after, **query)
        plan = explain(harness.database, *[each for each in seen if "ORDER BY tasks.created_at" in each[0]][-1])
        assert re.search(rf"\b{index}\b", plan), plan
        assert "TEMP B-TREE" not in plan, plan
        assert "Sort" not in plan, plan
