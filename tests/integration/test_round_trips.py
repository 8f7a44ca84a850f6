"""What a task asks of the database, counted; and that statements which go along with others are as good as alone."""

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, text
from sqlalchemy.exc import IntegrityError

from contract.access import Caller, Scope
from contract.queries import ModelRegistration
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.keys import create_key
from private_api.models import register_model
from private_api.round_trips import add_later
from private_api.tables import ConsumerRow, ModelUserRow, OutboxRow
from tests.running_api import RunningApi
from tests.statement_counts import counted
from tests.task_life import TaskLife

MOST_STATEMENTS = {
    "submit": 7,
    "claim": 12,
    "input": 1,
    "begin": 2,
    "beat": 7,
    "watch": 1,
    "log": 1,
    "upload": 1,
    "commit": 5,
    "fetch": 3,
}
"""Of a task of a client with a key; two beats. A poll's depend on what others asked for in the last half second."""
MOST_ROUND_TRIPS = {
    "submit": 4,
    "claim": 5,
    "input": 1,
    "begin": 2,
    "beat": 4,
    "watch": 1,
    "log": 1,
    "upload": 1,
    "commit": 2,
    "fetch": 3,
}
SOON = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_tasks_calls_take_no_more_round_trips_than_they_have_to(
    private_api: RunningApi, database: Database, tmp_path: Path
) -> None:
    key = prepare(database, tmp_path)
    with private_api.client() as http, private_api.consumer() as consumer, counted() as asked:
        life = TaskLife(http, consumer, key, "ada", tmp_path)
        life.register()
        life.live("echo")
        life.by = asked.by
        life.live("echo")
    assert {kind for kind, most in MOST_STATEMENTS.items() if asked.statements[kind] > most} == set()
    writing = {"submit": 1, "claim": 1, "begin": 1, "beat": 2, "commit": 1, "fetch": 1}
    assert {kind: count for kind, count in asked.commits.items() if kind in MOST_STATEMENTS} == writing
    if not database.is_sqlite:
        assert {kind for kind, most in MOST_ROUND_TRIPS.items() if asked.round_trips[kind] > most} == set()


def prepare(database: Database, folder: Path) -> str:
    """A model, and a client's key."""
    caller = Caller("ada", frozenset({Scope.SUBMIT, Scope.MODELS}))
    registration = ModelRegistration(human_readable_id="echo", container_tag="echo:1")
    register_model(database, ArchiveStore(folder / "models"), registration, None, caller)
    return create_key(database, owner="ada", scopes=[Scope.SUBMIT], lifetime=None)


def bell(uid: str) -> OutboxRow:
    return OutboxRow(queue="cpu", uid=uid, due_at=SOON)


def bells(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(OutboxRow.uid).order_by(OutboxRow.id)))


def test_what_is_said_in_a_transaction_is_there_in_its_order(database: Database) -> None:
    with database.write() as session:
        add_later(session, bell("one"))
        assert list(session.scalars(select(OutboxRow.uid))) == ["one"]
        session.execute(delete(OutboxRow))
        add_later(session, bell("two 100 %"))
        add_later(session, bell("three"))
    assert bells(database) == ["two 100 %", "three"]


@pytest.mark.parametrize("asks_before", [False, True])
def test_of_a_transaction_that_breaks_off_nothing_stays(database: Database, asks_before: bool) -> None:
    with contextlib.suppress(ZeroDivisionError), database.write() as session:
        if asks_before:
            session.execute(select(1)).all()
        values = [{"queue": "cpu", "uid": str(each), "due_at": SOON} for each in range(3)]
        session.execute(insert(OutboxRow), values)
        add_later(session, bell("later"))
        raise ZeroDivisionError
    assert bells(database) == []
    with database.write() as session:
        add_later(session, bell("next"))
    assert bells(database) == ["next"]


def test_many_rows_at_once_belong_to_the_transaction(database: Database) -> None:
    with database.write() as session:
        values = [{"uid": str(each), "due_at": SOON} for each in range(3)]
        # The first statement of the transaction, with several sets of parameters.
        session.connection().execute(
            text("INSERT INTO outbox (queue, uid, due_at) VALUES ('cpu', :uid, :due_at)"), values
        )
        assert bells_seen_by_others(database) == []
    assert bells(database) == ["0", "1", "2"]


def bells_seen_by_others(database: Database) -> list[str]:
    return [] if database.is_sqlite else bells(database)


def test_an_error_of_what_was_sent_along_ends_the_transaction_and_nothing_of_it_stays(database: Database) -> None:
    def write() -> None:
        with database.write() as session:
            add_later(session, bell("before"))
            add_later(session, ModelUserRow(model_id=-1, owner="nobody's"))

    with pytest.raises(IntegrityError):
        write()
    assert bells(database) == []


def test_a_savepoint_takes_back_what_was_sent_along_since(database: Database) -> None:
    with database.write() as session:
        add_later(session, bell("kept"))
        inner = session.begin_nested()
        add_later(session, bell("taken back"))
        inner.rollback()
        inner = session.begin_nested()
        add_later(session, bell("kept, too"))
        inner.commit()
    assert bells(database) == ["kept", "kept, too"]


def test_a_connection_goes_back_as_it_came(postgres_url: str) -> None:
    database = Database(postgres_url, pool_size=2)
    with contextlib.suppress(ZeroDivisionError), database.write() as session:
        session.execute(select(1)).all()
        raise ZeroDivisionError
    with contextlib.suppress(ZeroDivisionError), database.load() as connection:
        connection.execute(insert(OutboxRow).values(queue="cpu", uid="load", due_at=SOON))
        raise ZeroDivisionError
    with database.read() as session:
        assert session.scalars(text("SELECT count(*) FROM outbox")).one() == 0
        # Its own first statement would begin a transaction that holds back the vacuum.
        state = "SELECT xact_start = query_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        session.execute(text("SELECT pg_sleep(0.01)")).all()
        assert session.scalars(text(state)).one() is True
    with database.snapshot() as connection:
        assert connection.execute(text("SHOW transaction_isolation")).scalar_one() == "repeatable read"
    with database.write() as session:
        assert session.execute(text("SHOW transaction_isolation")).scalar_one() == "read committed"
        session.add(
            ConsumerRow(
                name="a", accepts_cpu_tasks=True, first_seen_at=database.now(session), seen_at=database.now(session)
            )
        )
    with database.read() as session:
        assert session.scalars(select(ConsumerRow.name)).all() == ["a"]
    database.close()
