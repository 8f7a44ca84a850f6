"""The database: connections, transactions, its clock, and the translation of its errors."""

import functools
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ParamSpec, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    ExceptionContext,
    create_engine,
    event,
    func,
    inspect,
    literal,
    select,
    text,
    type_coerce,
)
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from contract.errors import InvalidRequest, ServiceUnavailable, StorageFull
from private_api.columns import Instant
from private_api.postgres import connect_args, leave_what_has_ended
from private_api.round_trips import COMMIT, Outgoing, save_round_trips
from private_api.sqlite import prepare_sqlite

logger = logging.getLogger(__name__)

REQUEST_THREADS = 28
"""How many requests work at once; others wait for their turn, first come, first served."""
POOL_SIZE = REQUEST_THREADS + 8
"""A connection for each thread, those of loops too. A smaller pool gives what is returned to whoever comes next, and
one of a crowd waits until it is refused. Two processes stay below the 100 connections that PostgreSQL usually has."""
_SQLITE_TIMEOUT_S = 10
"""How long a transaction waits for another one."""
_AWAY = ("08", "25", "40", "53", "57", "58")
"""The classes of SQLSTATE that speak of the server or of other transactions, never of the statement: a connection or a
server that fails, one that only reads, a conflict, a lack of something, an operator, the operating system."""
_DISK_FULL = "53100"
_READ_ONLY = "25006"
_INSUFFICIENT_PRIVILEGE = "42501"
_CONFLICTS = ("40001", "40P01")
"""A serialization failure and a deadlock: nothing of the transaction happened, and the same again may succeed."""
_TRIES = 3
_PAUSE_S = (0.05, 0.2)
"""Before a repetition, in seconds, at random: PostgreSQL wakes the transaction that won only after the other has given
way, and a repetition at once may take its row away again. Two that repeat should not meet a second time."""

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Look:
    """A look at the database's clock, and at this process's own beside it, which nobody sets."""

    at: datetime
    before_s: float
    """By `time.monotonic`, before the database was asked."""
    after_s: float
    last_jump: int
    """The id of the newest jump of the clock that was known then; 0 without any."""


class Database:
    """A PostgreSQL or SQLite database. Thread-safe; a session belongs to the thread that opened it."""

    def __init__(
        self, url: str, *, pool_size: int = POOL_SIZE, before_write: Callable[[], None] = lambda: None
    ) -> None:
        """`before_write` is called at the start of each `write`, and raises nothing."""
        self.url = url
        self._before_write = before_write
        self.is_sqlite = url.startswith("sqlite")
        self.looking = threading.Lock()
        """Guards `last_look`."""
        self.last_look: Look | None = None
        if self.is_sqlite:
            self.engine = create_engine(url, pool_size=pool_size, connect_args={"timeout": _SQLITE_TIMEOUT_S})
            prepare_sqlite(self.engine)
            self._single = self.engine
        else:
            self.engine = create_engine(
                url,
                pool_size=pool_size,
                max_overflow=0,
                pool_timeout=3,
                pool_recycle=1800,
                connect_args=connect_args(url),
                # To look whether there is such a type takes each new connection two round trips.
                use_native_hstore=False,
            )
            self._single = save_round_trips(self.engine)
            event.listen(self.engine, "handle_error", _leave_what_only_reads)
            event.listen(self.engine, "checkout", leave_what_has_ended)

    def wipe(self) -> bool:
        """Leave nothing of removed rows in SQLite's log of changes. False if somebody reads it right now: try again.

        PostgreSQL's files are its administrator's; there is nothing to do for them here.
        """
        if not self.is_sqlite:
            return True
        connection = self.engine.raw_connection()
        cursor = connection.cursor()
        try:
            # Writers would wait for as long as this waits for readers.
            cursor.execute("PRAGMA busy_timeout=0")
            is_busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not is_busy
        except sqlite3.OperationalError:
            return False
        finally:
            cursor.execute(f"PRAGMA busy_timeout={_SQLITE_TIMEOUT_S * 1000}")
            connection.close()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads. Raises `ServiceUnavailable`."""
        with _translated_faults(), Session(self._single, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that is committed when the block ends and rolled back when it raises.

        Raises `ServiceUnavailable` while the database is away. Whether the commit happened is then unknown, so every
        write must be safe to repeat.
        """
        self._before_write()
        with _translated_faults(), Session(self._single, expire_on_commit=False) as session:
            outgoing = None if self.is_sqlite else Outgoing()
            connection = session.connection(execution_options={"writes": True, "outgoing": outgoing})
            yield session
            session.flush()
            # Unless whoever opened it has rolled it back.
            if outgoing is not None and session.in_transaction():
                connection.exec_driver_sql(COMMIT)
            session.commit()

    def serialize(self, session: Session, name: str) -> None:
        """Wait for every other open transaction that called this with the same name."""
        # SQLite has one writer at a time anyway.
        if not self.is_sqlite:
            session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})

    def open_writers(self, session: Session, table: str) -> frozenset[str]:
        """The open transactions that may have written to the table; once one is missing here, what it wrote is visible.

        The lock that an INSERT takes first is kept until its transaction has ended for all to see.
        """
        # SQLite has one writer at a time, whose rows appear in the order of their ids.
        if self.is_sqlite:
            return frozenset()
        statement = text(
            "SELECT virtualtransaction FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database"
            " WHERE datname = current_database() AND relation = CAST(:table AS regclass) AND mode = 'RowExclusiveLock'"
        )
        return frozenset(session.scalars(statement, {"table": table}))

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """All rows as they are at one moment, without a time limit. Raises `ServiceUnavailable`.

        Writers are not held up; a migration waits.
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
        """A write transaction without a time limit, which may change tables. It ends as `write` does."""
        with _translated_faults(), self.engine.connect() as connection:
            connection.execution_options(writes=True)
            with connection.begin():
                if not self.is_sqlite:
                    _lift_time_limits(connection)
                yield connection

    def now(self, session: Session) -> datetime:
        """The time by the database's clock, by which leases and deadlines are measured."""
        # SQLite runs inside this process, so this process's clock is the database's.
        return self.told(datetime.now(UTC) if self.is_sqlite else session.scalars(select(self.clock())).one())

    def clock(self) -> ColumnElement[datetime]:
        """The same as a column of a statement that is sent anyway; what it answers is for `told`.

        With a lock it is the time at which that was asked for, or if another transaction changed the row meanwhile, the
        time after that.
        """
        return literal(datetime.now(UTC), Instant) if self.is_sqlite else type_coerce(func.clock_timestamp(), Instant)

    def told(self, moment: datetime) -> datetime:
        """What the time is if the clock says this. Tests set clocks."""
        return moment

    def check(self) -> None:
        """Raises `ServiceUnavailable` unless the database answers."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        self.engine.dispose()


def repeated(work: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """A function that is one transaction and does nothing else: after a conflict with another one it is called again.

    The last of three conflicts is raised as `ServiceUnavailable`.
    """

    @functools.wraps(work)
    def repeating(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        for _ in range(_TRIES - 1):
            try:
                return work(*args, **kwargs)
            except ServiceUnavailable as error:
                if _sqlstate(error.__cause__) not in _CONFLICTS:
                    raise
                logger.info("%s met another transaction and is repeated: %s", work.__name__, error.__cause__)
                time.sleep(random.uniform(*_PAUSE_S))  # noqa: S311 - no secret
        return work(*args, **kwargs)

    return repeating


def _leave_what_only_reads(context: ExceptionContext) -> None:
    """After a failover the old server may still answer, but only read: connect anew, perhaps to another one."""
    if _sqlstate(context.original_exception) == _READ_ONLY:
        context.is_disconnect = True


def _sqlstate(error: BaseException | None) -> str:
    """PostgreSQL's code of what went wrong, or an empty text."""
    return getattr(getattr(error, "orig", error), "pgcode", None) or ""


def lacks_right(error: DBAPIError) -> bool:
    """Whether the role that logged in may not do what was asked."""
    return _sqlstate(error) == _INSUFFICIENT_PRIVILEGE


def _lift_time_limits(connection: Connection) -> None:
    for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(text(f"SET LOCAL {limit} = 0"))


@contextmanager
def _translated_faults() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise _unavailable(error) from error
    except (DataError, OverflowError) as error:
        raise InvalidRequest("a value of the request is larger than the database can store") from error
    except ValueError as error:
        # Raised by psycopg2: PostgreSQL cannot store such text, SQLite can.
        if "NUL (0x00)" not in str(error):
            raise
        raise InvalidRequest("a text of the request contains the character NUL") from error
    except DBAPIError as error:
        if error.connection_invalidated or _sqlstate(error).startswith(_AWAY):
            raise _unavailable(error) from error
        raise


def _unavailable(error: Exception) -> ServiceUnavailable | StorageFull:
    cause = str(getattr(error, "orig", None) or error)
    if _sqlstate(error) == _DISK_FULL or "disk is full" in cause or "No space left" in cause:
        return StorageFull("the database's disk is full; nothing of this request was kept")
    if _sqlstate(error) == _READ_ONLY:
        return ServiceUnavailable("the database only reads right now, as in a failover; repeat the request")
    if _sqlstate(error) in _CONFLICTS:
        return ServiceUnavailable("the request met others that change the same; repeat it")
    return ServiceUnavailable("the database cannot be reached right now; repeat the request")
