"""Columns of words hold plain text, and give members of their enumerations."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Column, Connection, MetaData, Table, create_engine, insert, select, text

from contract.statuses import Reason, Status
from private_api.columns import Word
from private_api.tables import Outcome

TABLE = Table(
    "words", MetaData(), Column("status", Word(16, Status)), Column("outcome", Word(32, Outcome, Reason), nullable=True)
)


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        TABLE.create(connection)
        yield connection
    engine.dispose()


def test_members_are_stored_as_their_text(connection: Connection) -> None:
    connection.execute(insert(TABLE).values(status=Status.RUNNING, outcome=Reason.TIME_LIMIT))
    assert connection.execute(text("SELECT status, outcome FROM words")).one() == ("running", "time_limit")


def test_rows_give_members_and_conditions_take_them(connection: Connection) -> None:
    connection.execute(text("INSERT INTO words VALUES ('queued', NULL), ('failed', 'exit_code'), ('leased', 'lost')"))
    rows = connection.execute(select(TABLE).where(TABLE.c.status.in_({Status.FAILED, Status.LEASED}))).all()
    assert {(type(row.status), row.outcome) for row in rows} == {(Status, Reason.EXIT_CODE), (Status, Outcome.LOST)}
    waiting = connection.execute(select(TABLE).where(TABLE.c.status == Status.QUEUED)).one()
    assert (waiting.status, waiting.outcome) == (Status.QUEUED, None)


def test_a_word_that_this_release_does_not_know_is_no_member(connection: Connection) -> None:
    connection.execute(text("INSERT INTO words VALUES ('paused', NULL)"))
    with pytest.raises(KeyError, match="paused"):
        connection.execute(select(TABLE.c.status)).one()
