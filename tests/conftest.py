"""Fixtures of all tests. Databases are real, each test's own, and migrated."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.task_logs import TaskLogs
from tests.adapters_once import adapters_made_once
from tests.compiled_once import compiled_once
from tests.databases import (
    DatabaseCopies,
    PostgresServer,
    copy_sqlite,
    database_copies,
    make_sqlite_template,
    migrate_url,
    postgres_server,
)
from tests.progress import Progress
from tests.running_api import RunningApi, run_private_api
from tests.scheduling import GroupScheduling
from tests.services import require_postgres, sockets_forgiven

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile(
    "laptop",
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=_SLOW_IS_FINE,
)
settings.register_profile("ci", settings.get_profile("laptop"), derandomize=True)
settings.register_profile("nightly", settings.get_profile("laptop"), max_examples=2000, stateful_step_count=100)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "laptop"))


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Where several processes run the tests, the one that starts them says how far they are."""
    # What is started in the background of a script ignores Ctrl-C, as do the programs that it starts in turn.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("numprocesses", None):
        config.pluginmanager.register(Progress(config.pluginmanager.getplugin("terminalreporter")), "progress")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """How tests are dealt out to several processes."""
    return GroupScheduling(config, log)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A service that a test runs in this process sets up logging, to an output that is closed after the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    # A service also quiets libraries.
    levels = {name: each.level for name, each in root.manager.loggerDict.items() if isinstance(each, logging.Logger)}
    yield
    root.setLevel(level)
    for name, each in list(root.manager.loggerDict.items()):
        if isinstance(each, logging.Logger):
            each.setLevel(levels.get(name, logging.NOTSET))
    for handler in [each for each in root.handlers if each not in handlers]:
        root.removeHandler(handler)


@pytest.fixture(scope="session", autouse=True)
def _no_traces_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`infer` reads and writes what it remembers in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _made_once() -> Iterator[None]:
    with compiled_once(), adapters_made_once():
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL server; skips where none listens."""
    with postgres_server(require_postgres()) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """The name of a migrated database that nobody is connected to."""
    name = postgres.create()
    migrate_url(postgres.url_of(name))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file."""
    return make_sqlite_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def postgres_copies(postgres: PostgresServer, postgres_template: str) -> Iterator[DatabaseCopies]:
    with database_copies(postgres, postgres_template) as copies:
        yield copies


@pytest.fixture
def postgres_url(postgres: PostgresServer, postgres_copies: DatabaseCopies) -> Iterator[str]:
    """The URL of a fresh, migrated PostgreSQL database."""
    name = postgres_copies.take()
    yield postgres.url_of(name)
    postgres_copies.give_back(name)


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a fresh, migrated SQLite database."""
    return copy_sqlite(sqlite_template, tmp_path)


@pytest.fixture(params=["postgres", "sqlite"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh, migrated database: the test runs once on each kind."""
    # Asked for by name, so that the SQLite half runs where no PostgreSQL is.
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def empty_database_url(request: pytest.FixtureRequest, database_kind: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a database that was never migrated: the test runs once on each kind."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.sqlite"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    copies: DatabaseCopies = request.getfixturevalue("postgres_copies")
    name = server.create()
    yield server.url_of(name)
    copies.give_back(name)


@pytest.fixture(params=["postgres", "sqlite"])
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh, migrated database: the test runs once on each kind."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def store(tmp_path: Path) -> ArchiveStore:
    """An empty archive store."""
    return ArchiveStore(tmp_path / "data" / "archives")


@pytest.fixture
def logs(tmp_path: Path) -> TaskLogs:
    """An empty log folder."""
    return TaskLogs(tmp_path / "data" / "logs")


@pytest.fixture
def private_api(database_url: str, tmp_path: Path) -> Iterator[RunningApi]:
    """A private API that answers over HTTP: the test runs once on each kind of database."""
    with run_private_api(database_url, tmp_path / "data") as api:
        yield api


@pytest.fixture
def api(sqlite_url: str, tmp_path: Path) -> Iterator[RunningApi]:
    """The same, for what does not depend on the kind of database."""
    with run_private_api(sqlite_url, tmp_path / "data") as api:
        yield api


@pytest.fixture
def collected_sockets() -> Iterator[None]:
    """Once the test is over, what docker-py left of failed connections is collected, unheard."""
    yield
    with sockets_forgiven():
        pass
