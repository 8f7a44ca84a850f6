"""How transactions are sent to PostgreSQL: in as few round trips as there are answers that somebody waits for.

The driver would send BEGIN and COMMIT each by itself. Here the begin goes along with the first statement. What is to be
sent `LATER` goes along with the next statement, at the latest with the end. All of it arrives in the order in which it
was said, in one transaction: only an error of such a statement is raised later, by what it was sent along with.
"""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, event

LATER = {"later": True, "synchronize_session": False}
"""Execution options of a statement whose answer nobody reads; an INSERT must be `inline()`."""

_IDLE = 0
"""What libpq says of a connection without a transaction."""


@dataclass
class Outgoing:
    """What was said in a transaction and not sent yet, as its connection's execution option `outgoing`.

    The driver begins nothing there; the statement COMMIT ends it, and where none comes, the pool does.
    """

    texts: list[bytes] = field(default_factory=lambda: [b"BEGIN"])
    is_ending: bool = False
    """Whether nothing will be asked any more: what changes rows can be sent with the end."""


def save_round_trips(engine: Engine) -> Engine:
    """Prepare an engine for PostgreSQL. Returns the one in which each statement is a transaction of its own.

    At READ COMMITTED a transaction that only reads is no more than its statements: it needs no begin and no end.
    """
    # The answer to an UPDATE that goes along with the end is not seen. Rows are locked before they are changed.
    engine.dialect.supports_sane_rowcount = False
    event.listen(engine, "do_execute", _send)
    event.listen(engine, "reset", _end_what_is_open)
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _send(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    """Send a statement with all that was kept, or keep it. Returns whether that was done here."""
    outgoing: Outgoing | None = context.execution_options.get("outgoing")
    if outgoing is None:
        return False
    text: bytes = cursor.mogrify(statement, parameters)
    if _can_wait(statement, context, outgoing):
        outgoing.texts.append(text)
        return True
    texts, outgoing.texts = [*outgoing.texts, text], []
    cursor.execute(b";\n".join(texts))
    return True


def _can_wait(statement: str, context: Any, outgoing: Outgoing) -> bool:
    if context.execution_options.get("later", False) or statement.startswith(("SAVEPOINT ", "RELEASE SAVEPOINT ")):
        return True
    changes = context.isupdate or context.isdelete
    return outgoing.is_ending and changes and not context.compiled.effective_returning


def _end_what_is_open(connection: Any, _record: Any, _state: Any) -> None:
    """A connection goes back to the pool: the driver, which began nothing, would end nothing."""
    if connection.info.transaction_status != _IDLE:
        connection.cursor().execute("ROLLBACK")
