"""Counts what a private API in this process asks of its database, by the kind of call that asks.

What libpq knows of a connection says what the driver sends beside the statements: a transaction's begin, where no
statement brings it along, and its end, unless nothing was begun.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, event

_REQUESTS = "AnyIO worker thread"
"""Where rules run that requests ask for; loops have threads of other names."""
LOOPS = "loops"


@dataclass
class Asked:
    """What was asked of the database, by kind of call."""

    kind: str = ""
    """Of the call that is under way."""
    statements: Counter[str] = field(default_factory=Counter)
    round_trips: Counter[str] = field(default_factory=Counter)
    commits: Counter[str] = field(default_factory=Counter)
    """Transactions that may have written."""
    texts: list[tuple[str, str]] = field(default_factory=list)
    """Each statement, after its kind."""

    @contextmanager
    def by(self, kind: str) -> Iterator[None]:
        """What requests ask while the block is open is of this kind. One call at a time."""
        self.kind = kind
        yield
        self.kind = ""

    @property
    def _kind(self) -> str:
        return self.kind if threading.current_thread().name.startswith(_REQUESTS) else LOOPS

    def on_statement(self, connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        """Before a statement is sent."""
        # SQLite's BEGIN is a statement of ours, and costs nothing.
        if statement.startswith("BEGIN"):
            return
        if statement == "COMMIT":
            return
        self.texts.append((self._kind, statement))
        self.statements[self._kind] += 1
        self.round_trips[self._kind] += self._sends_begin(connection)

    def after_statement(self, connection: Connection, cursor: Any, *_rest: Any) -> None:
        """After a statement was sent, or kept to be sent with the next one: then the driver knows of no query."""
        # To ask SQLite is a call of a function.
        if connection.dialect.name == "postgresql" and cursor.query is not None:
            self.round_trips[self._kind] += 1

    def on_commit(self, connection: Connection) -> None:
        """Before a commit is sent."""
        if self._is_begun(connection):
            self.round_trips[self._kind] += 1
        # A read is rolled back.
        self.commits[self._kind] += 1

    def on_rollback(self, connection: Connection) -> None:
        """Before a rollback is sent."""
        if self._is_begun(connection):
            self.round_trips[self._kind] += 1

    def _sends_begin(self, connection: Connection) -> bool:
        driver: Any = connection.connection.dbapi_connection
        if connection.dialect.name != "postgresql" or driver.autocommit:
            return False
        return bool(driver.info.transaction_status == 0)

    def _is_begun(self, connection: Connection) -> bool:
        driver: Any = connection.connection.dbapi_connection
        return connection.dialect.name == "postgresql" and driver.info.transaction_status != 0


@contextmanager
def counted() -> Iterator[Asked]:
    """Count while the block is open, in all databases of this process."""
    asked = Asked()
    listeners = (
        ("before_cursor_execute", asked.on_statement),
        ("after_cursor_execute", asked.after_statement),
        ("commit", asked.on_commit),
        ("rollback", asked.on_rollback),
    )
    for name, listener in listeners:
        event.listen(Engine, name, listener)
    try:
        yield asked
    finally:
        for name, listener in listeners:
            event.remove(Engine, name, listener)
