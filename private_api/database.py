"""The database: connections, transactions, its clock, and the translation of its faults."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from contract.errors import InvalidRequest, ServiceUnavailable, StorageFull

_POSTGRES_OPTIONS = (
    "-c statement_timeout=5000 -c idle_in_transaction_session_timeout=15000 -c lock_timeout=4000 -c timezone=UTC"
)


class Database:
    """A PostgreSQL or SQLite database. Thread-safe; a session belongs to the thread that opened it."""

    def __init__(self, url: str, *, pool_size: int = 20) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        if self.is_sqlite:
            self.engine = create_engine(url, pool_size=pool_size, connect_args={"timeout": 10})
            _prepare_sqlite(self.engine)
        else:
            self.engine = create_engine(
                url,
                pool_size=pool_size,
                max_overflow=0,
                pool_timeout=3,
                pool_pre_ping=True,
                pool_recycle=1800,
                connect_args={"connect_timeout": 3, "options": _POSTGRES_OPTIONS},
            )

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads. Raises `ServiceUnavailable`."""
        with _translated_faults(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that is committed when the block ends, and rolled back when it raises.

        Raises `ServiceUnavailable` when the database is away; whether the commit happened is then unknown, so every
        caller's write must be safe to repeat.
        """
        with _translated_faults(), Session(self.engine, expire_on_commit=False) as session:
            session.connection(execution_options={"writes": True})
            yield session
            session.commit()

    def serialize(self, session: Session, name: str) -> None:
        """Wait until no other transaction that called this with the same name is open."""
        # SQLite has one writer at a time anyway.
        if not self.is_sqlite:
            session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """All rows as they are at one moment, to read for as long as it takes. Raises `ServiceUnavailable`.

        Writers go on meanwhile; whoever wants to change the tables themselves waits.
        """
        with _translated_faults(), self.engine.connect() as connection:
            if not self.is_sqlite:
                quote = connection.dialect.identifier_preparer.quote
                names = ", ".join(quote(name) for name in inspect(self.engine).get_table_names())
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                _lift_time_limits(connection)
                # Before the first query, which is what fixes the moment.
                if names:
                    connection.execute(text(f"LOCK TABLE {names} IN ACCESS SHARE MODE"))
            yield connection

    @contextmanager
    def load(self) -> Iterator[Connection]:
        """A write transaction that may take as long as it wants, and may change tables. Ends like that of `write`."""
        with _translated_faults(), self.engine.connect() as connection:
            connection.execution_options(writes=True)
            with connection.begin():
                if not self.is_sqlite:
                    _lift_time_limits(connection)
                yield connection

    def now(self, session: Session) -> datetime:
        """The database's clock: the only one that leases and deadlines are measured with."""
        if self.is_sqlite:
            # SQLite runs inside this process, so this process's clock is the database's.
            return datetime.now(UTC)
        now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
        return now.astimezone(UTC)

    def check(self) -> None:
        """Raises `ServiceUnavailable` unless the database answers."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


def _lift_time_limits(connection: Connection) -> None:
    for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(text(f"SET LOCAL {limit} = 0"))


@contextmanager
def _translated_faults() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        cause = getattr(error, "orig", None) or error
        if "disk is full" in str(cause) or "No space left" in str(cause):
            raise StorageFull("the database's disk is full; nothing of this request was kept") from error
        raise ServiceUnavailable("the database cannot be reached right now; repeat the request") from error
    except (DataError, OverflowError) as error:
        raise InvalidRequest("a value of the request is larger than the database can store") from error
    except ValueError as error:
        # psycopg2 says it so; PostgreSQL stores no such text, SQLite does.
        if "NUL (0x00)" not in str(error):
            raise
        raise InvalidRequest("a text of the request contains the character NUL") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise ServiceUnavailable("the database connection was lost; repeat the request") from error
        raise


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver would begin transactions lazily; `on_begin` says itself when and how.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        # A reader that turns writer in mid-transaction fails at once under WAL: writers lock from the start.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
