"""A database of its own for every test: PostgreSQL cloned from a migrated template, SQLite a copied migrated file."""

import contextlib
import secrets
import shutil
import sqlite3
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from sqlalchemy import URL, Connection, NullPool, create_engine, make_url, text

from private_api.database import Database
from private_api.migrate import upgrade

_PREFIX = "inference_test_"
_PATIENT = " ".join(
    # On a machine that is busy with other things a test may stand still inside a transaction for longer.
    f"-c {limit}=300s"
    for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
)
_FAST = f"{_PATIENT} -c synchronous_commit=off"
"""Where tests ask less of their connections than a server does: what a test commits need not survive a power cut, and
the disk is what tests would wait for."""
_AHEAD = 3
"""So many copies are made before a test asks for one."""


@dataclass(frozen=True)
class PostgresServer:
    """A server on which this run of the tests makes databases; `admin` holds the run's advisory lock."""

    url: URL
    run: int
    admin: Connection
    _numbers: Iterator[int] = field(default_factory=count)

    def create(self, template: str | None = None) -> str:
        """Make a database, empty or as a copy, and return its name."""
        name = f"{_PREFIX}{self.run}_{next(self._numbers)}"
        self.admin.execute(text(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else "")))
        return name

    def drop(self, name: str) -> None:
        """Remove a database, in use or not."""
        self.admin.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))

    def url_of(self, name: str, *, durable: bool = False) -> str:
        """The URL of a database on this server. What is measured is `durable`, as a server's own database is."""
        url = self.url.set(database=name).update_query_dict({"options": _PATIENT if durable else _FAST})
        return url.render_as_string(hide_password=False)


class DatabaseCopies:
    """Copies of one template. A few are made ahead, and used ones are dropped, while tests run: the disk is slow.

    A drop waits for a checkpoint of the whole server, of a second where the disk is busy, and no copy waits for a drop.
    """

    def __init__(self, copier: PostgresServer, dropper: PostgresServer, template: str) -> None:
        """Each of the two is used by a thread of its own from now on."""
        self._copier, self._dropper, self._template = copier, dropper, template
        self._copying, self._dropping = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._dropped: list[Future[None]] = []
        self._ready = deque(self._copy() for _ in range(_AHEAD))

    def take(self) -> str:
        """The name of a copy that nobody has had."""
        self._ready.append(self._copy())
        return self._ready.popleft().result()

    def give_back(self, name: str) -> None:
        """It will be dropped, in use or not."""
        self._dropped.append(self._dropping.submit(self._dropper.drop, name))

    def close(self) -> None:
        """Wait for what is under way. Raises what a drop raised."""
        self._copying.shutdown()
        self._dropping.shutdown()
        for dropped in self._dropped:
            dropped.result()

    def _copy(self) -> Future[str]:
        return self._copying.submit(self._copier.create, self._template)


@contextlib.contextmanager
def database_copies(server: PostgresServer, template: str) -> Iterator[DatabaseCopies]:
    """Copies for the time of a block; the last ones, which nobody took, go with what is left over of the run."""
    with server.admin.engine.connect() as second, server.admin.engine.connect() as third:
        copies = DatabaseCopies(replace(server, admin=second), replace(server, admin=third), template)
        try:
            yield copies
        finally:
            copies.close()


@contextlib.contextmanager
def postgres_server(url: str) -> Iterator[PostgresServer]:
    """The server; at the end the databases of this run, and of earlier runs that broke off, are dropped."""
    run = secrets.randbelow(2**31)
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as admin:
        # Held as long as this run lives: another run drops what belongs to runs whose lock it can take.
        admin.execute(text("SELECT pg_advisory_lock(:run)"), {"run": run})
        server = PostgresServer(make_url(url), run, admin)
        try:
            yield server
        finally:
            _drop_left_overs(server)


def _drop_left_overs(server: PostgresServer) -> None:
    names = server.admin.execute(text("SELECT datname FROM pg_database WHERE starts_with(datname, :p)"), {"p": _PREFIX})
    for name in names.scalars().all():
        run = int(name.removeprefix(_PREFIX).partition("_")[0])
        # Our own lock is granted again to us; a second run's is not.
        if server.admin.execute(text("SELECT pg_try_advisory_lock(:run)"), {"run": run}).scalar_one():
            server.drop(name)
            server.admin.execute(text("SELECT pg_advisory_unlock(:run)"), {"run": run})


def migrate_url(url: str) -> None:
    """Bring the database to the newest schema, and leave no connection behind: a template must have none."""
    database = Database(url)
    try:
        upgrade(database)
    finally:
        database.close()


def make_sqlite_template(folder: Path) -> Path:
    """A migrated SQLite file without a journal beside it, to be copied."""
    path = folder / "template.sqlite"
    migrate_url(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def copy_sqlite(template: Path, folder: Path) -> str:
    """The URL of a copy of the template."""
    target = folder / "inference.sqlite"
    shutil.copyfile(template, target)
    return f"sqlite:///{target}"


@contextlib.contextmanager
def opened(url: str) -> Iterator[Database]:
    """A database while the block is open."""
    database = Database(url)
    try:
        yield database
    finally:
        database.close()
