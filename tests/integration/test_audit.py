"""What the audit trail holds of what people do through the door, on PostgreSQL and on SQLite."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import select

from contract.access import Scope
from private_api.audit.chain import Entry, check_entries, read_entries
from private_api.audit_tables import AuditEventRow
from private_api.database import Database
from private_api.keys import create_key
from tests.databases import opened
from tests.integration.public_door import PLAIN, RunningDoor, finish, serve_door
from tests.running_api import RunningApi
from tests.waiting import wait_until
from tests.zips import make_zip


@pytest.fixture
def behind(private_api: RunningApi) -> Iterator[Database]:
    with opened(private_api.database_url) as database:
        yield database


@contextmanager
def visit(private_api: RunningApi, key: str, *, behind_proxy: bool = False, **headers: str) -> Iterator[httpx.Client]:
    with (
        serve_door(private_api.url, allow_post_model=False, require_key=True, behind_proxy=behind_proxy) as url,
        httpx.Client(base_url=url, headers={"X-API-Key": key, **headers}, **PLAIN) as client,
    ):
        yield client


def events(database: Database) -> list[AuditEventRow]:
    with database.read() as session:
        return list(session.scalars(select(AuditEventRow).order_by(AuditEventRow.id)))


def done(database: Database, owner: str | None) -> list[tuple[str, str]]:
    return [(event.action, event.object) for event in events(database) if event.owner == owner]


def register(client: httpx.Client) -> None:
    answer = client.post("/api/models/", params={"human_readable_id": "echo", "container_tag": "echo:1"})
    assert answer.status_code == 200, answer.text


def submit(client: httpx.Client) -> str:
    answer = client.post("/api/tasks/", params={"human_readable_id": "echo"}, files={"zip_file": make_zip()})
    assert answer.status_code == 200, answer.text
    uid: str = answer.json()
    return uid


def test_whatever_somebody_does_is_in_the_trail(private_api: RunningApi, behind: Database) -> None:
    key = create_key(behind, owner="ada", scopes=[Scope.ADMIN], lifetime=None)
    with visit(private_api, key) as ada:
        register(ada)
        uid = submit(ada)
        ada.patch("/api/models/echo", json={"description": "of jane doe", "retired": False})
        ada.patch("/api/models/echo/versions/1", json={"description": "of jane doe"})
        again = ada.post(f"/api/tasks/{uid}/rerun").json()
        ada.post(f"/api/tasks/{again}/cancel")
        ada.post(f"/api/tasks/{again}/cancel")
        ada.delete(f"/api/tasks/{again}")
        ada.post("/api/models/echo/deployment", json={"port": 80})
        ada.delete("/api/models/echo/deployment")
        ada.post("/api/models/", params={"human_readable_id": "old", "container_tag": "old:1"})
        ada.delete("/api/models/old")
        made = ada.post("/api/keys/", json={"scopes": ["submit"], "owner": "bob"}).json()
        ada.delete(f"/api/keys/{made['id']}")
    assert done(behind, "ada") == [
        ("model.register", "echo@1"),
        ("task.submit", uid),
        ("model.change", "echo"),
        ("model.change", "echo@1"),
        ("task.rerun", again),
        ("task.cancel", again),
        ("task.delete", again),
        ("model.deploy", "echo@1"),
        ("model.undeploy", "echo"),
        ("model.register", "old@1"),
        ("model.delete", "old"),
        ("key.create", made["id"]),
        ("key.revoke", made["id"]),
    ]
    (made_by_command,) = [event for event in events(behind) if event.owner is None]
    assert (made_by_command.action, made_by_command.address) == ("key.create", "command")
    assert {event.key_id for event in events(behind)} == {None, key.split("_")[1]}
    assert not any("jane" in (event.detail or "") for event in events(behind))


def test_what_somebody_reads_is_in_the_trail_before_it_is_sent(private_api: RunningApi, behind: Database) -> None:
    key = create_key(behind, owner="ada", scopes=[Scope.SUBMIT, Scope.MODELS], lifetime=None)
    with visit(private_api, key) as ada:
        register(ada)
        uid = submit(ada)
        assert ada.get(f"/api/tasks/{uid}").status_code == 551
        finish(RunningDoor("", private_api.data_dir, private_api.url), uid)
        before = len(events(behind))
        for path in ("", "/output", "/logs", "/input/files", "/input/files/a.txt", "/output/files/file.txt"):
            assert ada.get(f"/api/tasks/{uid}{path}").is_success, path
        for path in ("", "/output", "/output/files/file.txt"):
            assert ada.head(f"/api/tasks/{uid}{path}").is_success, path
        assert ada.get(f"/api/tasks/{uid}/status").is_success
    read = [(event.action, event.object) for event in events(behind)[before:]]
    names = ["read_output", "read_output", "read_log", "read_input", "read_input", "read_output"]
    assert read == [(f"task.{name}", uid) for name in names]


def test_nobody_reads_what_cannot_be_recorded(private_api: RunningApi, behind: Database) -> None:
    key = create_key(behind, owner="ada", scopes=[Scope.SUBMIT, Scope.MODELS], lifetime=None)
    with visit(private_api, key) as ada:
        register(ada)
        uid = submit(ada)
        finish(RunningDoor("", private_api.data_dir, private_api.url), uid)
        with behind.load() as connection:
            connection.exec_driver_sql("ALTER TABLE audit_events RENAME TO gone")
        answer = ada.get(f"/api/tasks/{uid}/output")
    assert answer.json()["error"] in ("InferenceError", "ServiceUnavailable")


def test_a_refusal_leaves_no_trace_of_what_was_not_done(private_api: RunningApi, behind: Database) -> None:
    key = create_key(behind, owner="ada", scopes=[Scope.SUBMIT], lifetime=None)
    with visit(private_api, key) as ada:
        assert ada.post("/api/models/", params={"human_readable_id": "x", "container_tag": "x:1"}).status_code == 403
        assert ada.delete(f"/api/tasks/{'0' * 64}").status_code == 554
        assert ada.get(f"/api/tasks/{'0' * 64}/output").status_code == 554
    assert done(behind, "ada") == []


@pytest.mark.parametrize(
    ("behind_proxy", "said", "is_from"),
    [
        # Without a proxy, what the client says of itself is not believed.
        (False, "203.0.113.9", "127.0.0.1"),
        (True, "203.0.113.9", "203.0.113.9"),
        (True, "2001:DB8:0::9", "2001:db8::9"),
        (True, "<script>", None),
    ],
)
def test_an_event_says_where_it_came_from(
    private_api: RunningApi, behind: Database, behind_proxy: bool, said: str, is_from: str | None
) -> None:
    key = create_key(behind, owner="ada", scopes=[Scope.MODELS], lifetime=None)
    names = ("X-Real-IP", "X-Forwarded-For", "X-Caller-Address")
    headers = {**dict.fromkeys(names, said), "X-Request-ID": "one-of-ada"}
    with visit(private_api, key, behind_proxy=behind_proxy, **headers) as ada:
        register(ada)
    event = events(behind)[-1]
    assert (event.address, event.request_id) == (is_from, "one-of-ada")


def test_events_are_linked_soon_and_by_one_chain(private_api: RunningApi, behind: Database) -> None:
    for number in range(5):
        create_key(behind, owner=f"o{number}", scopes=[Scope.SUBMIT], lifetime=None)

    def linked() -> list[Entry]:
        return list(check_entries(read_entries(behind), from_start=True))

    wait_until(lambda: len(linked()) == 5, "every event to be linked")
    assert [entry.detail for entry in linked()] == [f"owner=o{number} scopes=submit" for number in range(5)]
