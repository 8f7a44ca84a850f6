"""How transactions are sent to PostgreSQL: in as few round trips as there are answers that somebody waits for.

The driver would send BEGIN and COMMIT each by itself. Here the begin goes along with the first statement. What answers
nothing, an UPDATE or a DELETE, and an INSERT that is to be sent `LATER`, goes along with the next statement that does,
or with the end. All of it arrives in the order in which it was said, in one transaction: only an error of such a
statement is raised later, by what it was sent along with.
"""

from dataclasses import dataclass, field
from typing import Any

import psycopg2  # type: ignore[import-untyped]
from sqlalchemy import Connection, Engine, event, insert
from sqlalchemy.orm import Session

from private_api.columns import Base

LATER = {"later": True}
"""Execution options of an INSERT of which nobody asks which ids it gave; it must be `inline()`."""
COMMIT = "COMMIT"
"""The statement that ends a transaction, and what PostgreSQL says of one that it kept; of another, `ROLLBACK`."""
_IDLE = 0
"""What libpq says of a connection without a transaction."""


@dataclass
class Outgoing:
    """What was said in a transaction and not sent yet, as its connection's execution option `outgoing`.

    The driver begins nothing there; the statement COMMIT ends it, and where none comes, the pool does.
    """

    texts: list[bytes] = field(default_factory=lambda: [b"BEGIN"])


def save_round_trips(engine: Engine) -> Engine:
    """Prepare an engine for PostgreSQL. Returns the one in which each statement is a transaction of its own.

    At READ COMMITTED a transaction that only reads is no more than its statements: it needs no begin and no end.
    """
    # Nobody sees how many rows an UPDATE changed that goes along with something else.
    engine.dialect.supports_sane_rowcount = False
    event.listen(engine, "do_execute", _send)
    event.listen(engine, "do_executemany", _send_many)
    event.listen(engine, "reset", _leave_as_found)
    single = engine.execution_options()
    event.listen(single, "engine_connect", _begin_nothing)
    return single


def add_later(session: Session, row: Base) -> None:
    """Insert a row that nobody reads in this transaction; its values may be expressions. It does not join the session.

    What the session changed so far is written before it, as it would be by a flush.
    """
    session.flush()
    values = {name: value for name, value in vars(row).items() if not name.startswith("_")}
    session.execute(insert(type(row)).values(values).inline(), execution_options=LATER)


def _send(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    """Send a statement with all that was kept, or keep it. Returns whether that was done here."""
    return _send_many(cursor, statement, [parameters], context)


def _send_many(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    """The same with several sets of parameters."""
    outgoing: Outgoing | None = context.execution_options.get("outgoing")
    if outgoing is None:
        return False
    outgoing.texts += [cursor.mogrify(statement, each) for each in parameters]
    if not _can_wait(statement, context):
        texts, outgoing.texts = outgoing.texts, []
        cursor.execute(b";\n".join(texts))
        if statement == COMMIT and cursor.statusmessage != COMMIT:
            # Whoever caught the error of a statement would take this for kept.
            raise psycopg2.OperationalError("a statement of the transaction had failed, so nothing of it is kept")
    return True


def _can_wait(statement: str, context: Any) -> bool:
    if context.isupdate or context.isdelete:
        return not context.compiled.effective_returning
    return context.execution_options.get("later", False) or statement.startswith(("SAVEPOINT ", "RELEASE SAVEPOINT "))


def _begin_nothing(connection: Connection) -> None:
    """Have the driver send what it is given, and nothing else."""
    driver: Any = connection.connection.dbapi_connection
    # Not by SQLAlchemy's isolation level: to go to and fro between two that are named, the driver sends a statement.
    driver.isolation_level = driver.readonly = None
    driver.autocommit = True


def _leave_as_found(driver: Any, _record: Any, _state: Any) -> None:
    """A connection goes back to the pool: the driver, which began nothing, would end nothing."""
    if driver.autocommit:
        if driver.info.transaction_status != _IDLE:
            driver.cursor().execute("ROLLBACK")
        driver.autocommit = False
