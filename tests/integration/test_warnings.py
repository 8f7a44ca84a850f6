"""A finished task whose output is not all that the run left: its warnings, from the commit to whoever asks.

The same on PostgreSQL and on SQLite.
"""

import json
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import event

from contract.access import ANONYMOUS, Caller, Scope
from contract.claims import ClaimRequest
from contract.overview import TaskListQuery
from private_api.placement.outlook import find_output, show_task
from private_api.tasks.attempts import show_assignment
from private_api.tasks.listing import list_tasks
from tests.integration.task_harness import SIZES, Harness
from tests.running_api import RunningApi
from tests.zips import make_zip

ADA = Caller("ada", frozenset({Scope.SUBMIT}))
OPERATOR = Caller("carol", frozenset({Scope.OPERATE}))
ADMIN = Caller("dora", frozenset({Scope.OPERATE, Scope.ADMIN}))
LINK = "'latest' is a link that leads out of /output and was left out"
SOCKET = "'größe.sock' is a socket and was left out"


def finish(harness: Harness, uid: str, *warnings: str, count: int | None = None) -> None:
    held = harness.claim(uid=uid)
    told = {"warnings": list(warnings), "warning_count": len(warnings) if count is None else count}
    harness.commit(held, harness.upload(held).model_copy(update=told))


def test_a_task_finishes_with_its_warnings(harness: Harness) -> None:
    uid = harness.submit()
    finish(harness, uid, LINK, SOCKET, count=7)
    view = show_task(harness.database, harness.logs, uid, ANONYMOUS)
    assert (view.status, view.warnings, view.warning_count) == ("finished", [LINK, SOCKET], 7)
    assert find_output(harness.database, harness.store, harness.logs, uid, ANONYMOUS).warning_count == 7


def test_a_task_without_warnings_has_none(harness: Harness) -> None:
    held = harness.submit_and_claim()
    harness.commit(held)
    view = show_task(harness.database, harness.logs, held.uid, ANONYMOUS)
    assert (view.warnings, view.warning_count) == ([], 0)
    assert find_output(harness.database, harness.store, harness.logs, held.uid, ANONYMOUS).warning_count == 0


def test_warnings_are_at_least_as_many_as_are_told(harness: Harness) -> None:
    uid = harness.submit()
    finish(harness, uid, LINK, SOCKET, count=0)
    assert show_task(harness.database, harness.logs, uid, ANONYMOUS).warning_count == 2


def test_a_repeated_commit_changes_no_warning(harness: Harness) -> None:
    held = harness.submit_and_claim()
    commit = harness.upload(held)
    for warnings in ([LINK], [SOCKET]):
        harness.commit(held, commit.model_copy(update={"warnings": warnings}))
    assert show_task(harness.database, harness.logs, held.uid, ANONYMOUS).warnings == [LINK]


def test_a_list_counts_warnings_and_does_not_read_them(harness: Harness) -> None:
    finish(harness, harness.submit(caller=ADA), LINK)
    statements: list[str] = []
    engine = harness.database.engine
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    (listed,) = list_tasks(harness.database, ADA, TaskListQuery())
    assert (listed.warnings, listed.warning_count) == ([], 1)
    assert not any("tasks.warnings" in statement for statement in statements)


def test_warnings_name_files_and_are_for_owner_and_admin(harness: Harness) -> None:
    uid = harness.submit(caller=ADA)
    finish(harness, uid, LINK)
    seen = {caller.owner: show_task(harness.database, harness.logs, uid, caller) for caller in (ADA, OPERATOR, ADMIN)}
    assert {owner: view.warnings for owner, view in seen.items()} == {"ada": [LINK], "carol": [], "dora": [LINK]}
    assert {view.warning_count for view in seen.values()} == {1}


def test_a_consumer_is_told_which_outputs_are_refused(harness: Harness) -> None:
    harness.register("lenient")
    harness.register("strict", strict_output=True)
    for model, is_strict in (("lenient", False), ("strict", True)):
        held = harness.claim(uid=harness.submit(model))
        assert held.strict_output is is_strict
        assert show_assignment(harness.database, held.uid, held.fence, SIZES).strict_output is is_strict


@pytest.fixture
def http(private_api: RunningApi) -> Iterator[httpx.Client]:
    with private_api.client() as client:
        client.post("/api/models/?human_readable_id=echo&container_tag=echo:1").raise_for_status()
        yield client


def commit(private_api: RunningApi, http: httpx.Client, **told: object) -> tuple[str, httpx.Response]:
    """A new task's uid, and the answer to the commit of its output with this in the body."""
    headers = {"Content-Type": "application/zip"}
    uid: str = http.post("/api/tasks/?human_readable_id=echo", content=make_zip(), headers=headers).json()
    with private_api.consumer() as consumer:
        held = consumer.claim(ClaimRequest(consumer="ada", uid=uid))
        assert held is not None
        stored = consumer.upload_output(uid, held.fence, [b"output"])
    body = json.dumps({"consumer": "ada", **stored.model_dump(), **told})
    json_headers = {"Content-Type": "application/json"}
    return uid, http.post(f"/internal/tasks/{uid}/attempts/{held.fence}/commit", content=body, headers=json_headers)


def test_a_zip_says_how_many_warnings_its_task_has(private_api: RunningApi, http: httpx.Client) -> None:
    uid, answer = commit(private_api, http, warnings=[LINK], warning_count=3)
    assert answer.json() == {"status": "finished"}
    for path in (f"/api/tasks/{uid}", f"/api/tasks/{uid}/output"):
        assert http.get(path).headers["x-task-warnings"] == "3"
        assert http.head(path).headers["x-task-warnings"] == "3"
    assert http.get(f"/api/tasks/{uid}/output", headers={"Range": "bytes=1-"}).headers["x-task-warnings"] == "3"
    clean, _ = commit(private_api, http)
    assert "x-task-warnings" not in http.get(f"/api/tasks/{clean}").headers


def test_no_text_that_a_model_wrote_costs_its_output(private_api: RunningApi, http: httpx.Client) -> None:
    uid, answer = commit(private_api, http, warnings=["a\0b", "\ud800 and \x1b[2J", "größer \U0001f9e0"])
    assert answer.status_code == 200, answer.text
    assert http.get(f"/api/tasks/{uid}/status").json()["warnings"] == [
        "a\ufffdb",
        "\ufffd and \x1b[2J",
        "größer \U0001f9e0",
    ]


@pytest.mark.parametrize(
    "told",
    [
        {"warnings": ["x" * 501]},
        {"warnings": ["x"] * 101},
        {"warning_count": -1},
        {"warning_count": 2**63},
    ],
)
def test_more_than_is_kept_is_refused(private_api: RunningApi, http: httpx.Client, told: dict[str, object]) -> None:
    uid, answer = commit(private_api, http, **told)
    assert answer.status_code == 422, answer.text
    assert http.get(f"/api/tasks/{uid}/status").json()["status"] == "leased"


def test_as_much_as_is_kept_is_told(private_api: RunningApi, http: httpx.Client) -> None:
    most = ["ü" * 500] * 100
    uid, answer = commit(private_api, http, warnings=most, warning_count=2**31 - 1)
    assert answer.status_code == 200, answer.text
    told = http.get(f"/api/tasks/{uid}/status").json()
    assert (told["warnings"], told["warning_count"]) == (most, 2**31 - 1)


def test_a_model_and_its_versions_say_whether_they_are_strict(http: httpx.Client) -> None:
    http.post("/api/models/?human_readable_id=echo&container_tag=echo:2&replace=true&strict_output=true")
    assert http.get("/api/models/echo").json()["strict_output"]
    assert not http.get("/api/models/echo@1").json()["strict_output"]
    versions = http.get("/api/models/echo/versions").json()
    assert [(version["version"], version["strict_output"]) for version in versions] == [(2, True), (1, False)]
