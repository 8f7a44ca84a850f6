"""The rules of keys and owners: the same on PostgreSQL and on SQLite."""

import hmac
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import event, inspect, text

from contract.access import ANONYMOUS, Caller, Scope
from contract.errors import IdempotencyConflict, InvalidRequest, TaskNotFound, Unauthenticated
from contract.overview import TaskListQuery
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.keys import USE_NOTED_EVERY, check_key, create_key, list_keys, revoke_key
from private_api.migrate import upgrade
from private_api.placement.outlook import find_output, show_task
from private_api.tables import ApiKeyRow
from private_api.task_logs import TaskLogs
from private_api.tasks.cancel import cancel_task, delete_task
from private_api.tasks.listing import list_tasks
from private_api.tasks.read import find_log, is_ended
from tests.integration.task_harness import Harness

ADA = Caller("ada", frozenset({Scope.SUBMIT}))
BOB = Caller("bob", frozenset({Scope.SUBMIT}))
OPERATOR = Caller("carol", frozenset({Scope.OPERATE}))


def make(database: Database, *scopes: Scope, lifetime: timedelta | None = None) -> str:
    return create_key(database, owner="ada", scopes=scopes or (Scope.SUBMIT,), lifetime=lifetime)


def id_of(key: str) -> str:
    return key.split("_")[1]


def shift(database: Database, key: str, **moments: timedelta) -> None:
    with database.write() as session:
        row = session.get_one(ApiKeyRow, id_of(key))
        for name, by in moments.items():
            setattr(row, name, getattr(row, name) + by)


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """What is sent to the database while the block is open."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


# Keys


def test_a_key_stands_for_its_owner_and_scopes(database: Database) -> None:
    key = make(database, Scope.SUBMIT, Scope.MODELS)
    assert re.fullmatch(r"is_[0-9a-f]{16}_[0-9a-f]{64}", key)
    assert check_key(database, key) == Caller("ada", frozenset({Scope.SUBMIT, Scope.MODELS}))


def test_no_two_keys_are_alike(database: Database) -> None:
    keys = [make(database) for _ in range(20)]
    assert len({id_of(key) for key in keys}) == len({key.split("_")[2] for key in keys}) == 20


def test_the_database_holds_no_secret(database: Database) -> None:
    key = make(database)
    check_key(database, key)
    secret = key.split("_")[2]
    with database.engine.connect() as connection:
        dump = [
            str(tuple(row))
            for table in inspect(database.engine).get_table_names()
            for row in connection.execute(text(f'SELECT * FROM "{table}"'))  # noqa: S608 - the names are the schema's
        ]
    assert any(id_of(key) in row for row in dump)
    assert not any(secret in row or secret[:16] in row for row in dump)


def test_a_key_ends_when_it_is_revoked_or_expires(database: Database) -> None:
    expiring, revoked, other = make(database, lifetime=timedelta(hours=1)), make(database), make(database)
    assert check_key(database, expiring).owner == "ada"
    shift(database, expiring, expires_at=timedelta(hours=-1))
    assert [revoke_key(database, id_of(revoked)) for _ in range(2)] == [True, True]
    for key, word in ((expiring, "expired"), (revoked, "revoked")):
        with pytest.raises(Unauthenticated, match=word):
            check_key(database, key)
    assert check_key(database, other).owner == "ada"
    assert [key.state for key in list_keys(database)] == ["expired", "revoked", "valid"]


def test_revoking_again_keeps_the_first_moment_and_an_unknown_id_is_told(database: Database) -> None:
    key = make(database)
    revoke_key(database, id_of(key))
    shift(database, key, revoked_at=timedelta(days=-1))
    (before,) = list_keys(database)
    revoke_key(database, id_of(key))
    assert list_keys(database) == [before]
    assert not revoke_key(database, "0" * 16)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: "",
        lambda _: "is_",
        lambda key: key[:-1],
        lambda key: key + "0",
        lambda key: key + "\n",
        lambda key: key.upper(),
        lambda key: f" {key}",
        lambda key: key.replace("_", "-"),
        lambda key: f"is__{key.split('_')[2]}",
        lambda _: "is_é" + "0" * 80,
    ],
)
def test_what_is_not_a_key_is_refused(database: Database, spoil: Callable[[str], str]) -> None:
    with pytest.raises(Unauthenticated, match="is not a key"):
        check_key(database, spoil(make(database)))


def test_an_unknown_id_costs_what_a_wrong_secret_costs(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    known = make(database)
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def count(given: str, stored: str) -> bool:
        compared.append((len(given), len(stored)))
        return compare(given, stored)

    monkeypatch.setattr(hmac, "compare_digest", count)
    costs, said = [], []
    for key in (f"is_{id_of(known)}_{'0' * 64}", f"is_{'0' * 16}_{'0' * 64}"):
        with statements(database) as sent, pytest.raises(Unauthenticated) as caught:
            check_key(database, key)
        costs.append(list(sent))
        said.append(caught.value.to_body())
    assert costs[0] == costs[1]
    assert len(costs[0]) > 0
    assert said[0] == said[1]
    assert compared == [(64, 64), (64, 64)]


def test_the_dummy_that_unknown_ids_are_compared_with_is_no_secret(database: Database) -> None:
    with database.write() as session:
        row = ApiKeyRow(id="0" * 16, secret_sha256="0" * 64, owner="eve", scopes="admin")
        row.created_at = database.now(session)
        session.add(row)
    with pytest.raises(Unauthenticated):
        check_key(database, f"is_{'0' * 16}_{'0' * 64}")


def test_the_last_use_is_noted_once_a_minute(database: Database) -> None:
    key = make(database)
    check_key(database, key)
    with statements(database) as sent:
        check_key(database, key)
    (first,) = list_keys(database)
    assert first.last_used_at is not None
    assert not any("UPDATE" in statement for statement in sent)
    shift(database, key, last_used_at=-USE_NOTED_EVERY)
    check_key(database, key)
    (second,) = list_keys(database)
    assert second.last_used_at is not None
    assert second.last_used_at >= first.last_used_at


# Owners


def test_a_stranger_finds_no_task_of_an_owner_and_changes_none(harness: Harness) -> None:
    uid = harness.submit(caller=ADA)
    database = harness.database
    looks: list[Callable[[Caller], object]] = [
        lambda caller: show_task(database, harness.logs, uid, caller),
        lambda caller: is_ended(database, uid, caller),
        lambda caller: find_log(database, uid, caller),
        lambda caller: cancel_task(database, uid, caller),
        lambda caller: find_output(database, harness.store, harness.logs, uid, caller),
        lambda caller: delete_task(database, uid, caller),
    ]
    for stranger in (BOB, ANONYMOUS, Caller("bob", frozenset({Scope.SUBMIT, Scope.MODELS}))):
        for look in looks:
            with pytest.raises(TaskNotFound):
                look(stranger)
    row = harness.row(uid)
    assert (row.status, row.cancel_at, row.deleted_at, row.owner) == ("queued", None, None, "ada")
    assert show_task(database, harness.logs, uid, OPERATOR).owner == "ada"
    cancel_task(database, uid, OPERATOR)
    delete_task(database, uid, ADA)
    with pytest.raises(TaskNotFound):
        show_task(database, harness.logs, uid, ADA)


def test_a_task_that_was_submitted_without_a_key_is_open_to_all_who_know_its_uid(harness: Harness) -> None:
    uid = harness.submit()
    for caller in (ANONYMOUS, ADA, OPERATOR):
        assert show_task(harness.database, harness.logs, uid, caller).owner is None


def test_an_idempotency_key_belongs_to_its_owner(harness: Harness) -> None:
    first = {caller.owner: harness.submit(key="study", caller=caller) for caller in (ANONYMOUS, ADA, BOB)}
    again = {caller.owner: harness.submit(key="study", caller=caller) for caller in (ANONYMOUS, ADA, BOB)}
    assert first == again
    assert len(set(first.values())) == 3
    for caller in (ANONYMOUS, ADA):
        with pytest.raises(IdempotencyConflict):
            harness.submit(key="study", files={"b.txt": b"other"}, caller=caller)
    assert harness.submit(key="other", files={"b.txt": b"other"}, caller=ADA) not in first.values()


def test_submissions_of_one_owner_at_the_same_time_under_one_key_are_one_task(harness: Harness) -> None:
    with ThreadPoolExecutor(4) as pool:
        uids = set(pool.map(lambda _: harness.submit(key="study", caller=ADA), range(8)))
    assert len(uids) == 1
    _, rows = harness.rows()
    assert set(rows) == uids


def test_the_list_has_the_own_tasks_newest_first_page_by_page(harness: Harness) -> None:
    uids = []
    for _ in range(5):
        uids.append(harness.submit(caller=ADA))
        harness.submit(caller=BOB)
        harness.submit()
    newest_first = uids[::-1]

    def page(limit: int, after: str | None = None, caller: Caller = ADA) -> list[str]:
        return [task.uid for task in list_tasks(harness.database, caller, TaskListQuery(limit=limit, after=after))]

    assert page(500) == newest_first
    assert page(2) == newest_first[:2]
    assert page(2, newest_first[1]) == newest_first[2:4]
    # The task that a page ended with may be gone when the next is asked for.
    delete_task(harness.database, newest_first[1], ADA)
    assert page(2, newest_first[1]) == newest_first[2:4]
    assert page(2, newest_first[3]) == newest_first[4:]
    assert page(2, newest_first[4]) == []
    assert newest_first[1] not in page(500)
    for foreign in (harness.submit(caller=BOB), harness.submit(), "0" * 64):
        with pytest.raises(InvalidRequest, match="after"):
            page(2, foreign)
    with pytest.raises(Unauthenticated):
        page(2, caller=ANONYMOUS)


def test_a_page_costs_one_query_however_many_tasks_it_has(harness: Harness) -> None:
    costs = []
    for _ in range(2):
        harness.commit(harness.claim(uid=harness.submit(caller=ADA)))
        with statements(harness.database) as sent:
            tasks = list_tasks(harness.database, ADA, TaskListQuery(limit=10))
        costs.append(len([statement for statement in sent if "SELECT" in statement]))
    assert [task.output is not None for task in tasks] == [True, True]
    assert costs == [1, 1]


# Upgrading

_OLD_ROWS = """
    INSERT INTO archives (key, sha256, size_bytes, created_at) VALUES ('inputs/x', 'x', 1, CURRENT_TIMESTAMP);
    INSERT INTO models (human_readable_id, newest_version, created_at) VALUES ('echo', 1, CURRENT_TIMESTAMP);
    INSERT INTO model_versions (model_id, number, container_tag, description, use_gpu, pull_policy, isolation,
        time_limit_s, created_at)
    VALUES (1, 1, 'echo:1', '', false, 'missing', 'strict', 60, CURRENT_TIMESTAMP)
"""


def _insert_as_before(database: Database, uid: str, idempotency_key: str) -> None:
    """As the version before keys does it."""
    with database.write() as session:
        session.execute(
            text(
                "INSERT INTO tasks (uid, idempotency_key, model_version_id, use_gpu, status, fence, attempts, crashes,"
                " infrastructure_failures, not_before, input_id, created_at)"
                " VALUES (:uid, :key, 1, false, 'queued', 0, 0, 0, 0, CURRENT_TIMESTAMP, 1, CURRENT_TIMESTAMP)"
            ),
            {"uid": uid, "key": idempotency_key},
        )


def test_the_version_before_keys_works_on_beside_this_one(
    empty_database_url: str, store: ArchiveStore, logs: TaskLogs
) -> None:
    database = Database(empty_database_url)
    try:
        upgrade(database, "0001")
        with database.write() as session:
            for statement in _OLD_ROWS.split(";"):
                session.execute(text(statement))
        _insert_as_before(database, "a" * 64, "study")
        upgrade(database)
        _insert_as_before(database, "b" * 64, "other")
        for uid in ("a" * 64, "b" * 64):
            assert not is_ended(database, uid, ANONYMOUS)
            assert not is_ended(database, uid, ADA)
        new = Harness(database, store, logs)
        with pytest.raises(IdempotencyConflict):
            new.submit(key="study")
        assert new.submit(key="study", caller=ADA) == new.submit(key="study", caller=ADA)
    finally:
        database.close()
