"""The private API under a role of its own, on PostgreSQL: it does all it has to, and cannot change the audit trail."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import ProgrammingError

from contract.access import Scope
from private_api.archives import ArchiveStore
from private_api.audit.chain import read_entries
from private_api.backup.write import back_up
from private_api.keys import create_key
from private_api.migrate import MayNotMigrate, known_revisions, upgrade
from private_api.roles import make_services_role
from private_api.task_logs import TaskLogs
from tests.databases import PostgresServer, opened
from tests.integration.public_door import PLAIN, RunningDoor, finish, serve_door
from tests.running_api import run_private_api
from tests.waiting import wait_until
from tests.zips import make_zip


@pytest.fixture
def owner_url(postgres: PostgresServer) -> Iterator[str]:
    """An empty database of a role that may make others, as an installation has it."""
    role, name = f"inference_test_{secrets.token_hex(4)}", postgres.create()
    postgres.admin.execute(text(f"CREATE ROLE {role} LOGIN CREATEROLE"))
    postgres.admin.execute(text(f'ALTER DATABASE "{name}" OWNER TO {role}'))
    url = make_url(postgres.url_of(name)).set(username=role, password="of-the-owner")
    yield url.render_as_string(hide_password=False)
    postgres.drop(name)
    postgres.admin.execute(text(f"DROP ROLE IF EXISTS {role}_services"))
    postgres.admin.execute(text(f"DROP ROLE {role}"))


@pytest.fixture
def services_url(owner_url: str) -> str:
    """The same database, migrated, as the services log in to it."""
    with opened(owner_url) as database:
        upgrade(database)
        return make_services_role(database)


def test_everything_works_under_the_role(services_url: str, tmp_path: Path) -> None:
    with opened(services_url) as database, run_private_api(services_url, tmp_path / "data") as api:
        key = create_key(database, owner="ada", scopes=[Scope.ADMIN], lifetime=None)
        with (
            serve_door(api.url, require_key=True) as url,
            httpx.Client(base_url=url, headers={"X-API-Key": key}, **PLAIN) as ada,
        ):
            ada.post("/api/models/", params={"human_readable_id": "echo", "container_tag": "echo:1"})
            submitted = ada.post("/api/tasks/", params={"human_readable_id": "echo"}, files={"zip_file": make_zip()})
            uid = submitted.json()
            output = finish(RunningDoor("", api.data_dir, api.url), uid)
            assert ada.get(f"/api/tasks/{uid}").content == output
            assert ada.post("/api/models/echo/deployment", json={"port": 80}).is_success
            assert ada.delete("/api/models/echo/deployment").is_success
            assert ada.delete(f"/api/tasks/{uid}").is_success
        wait_until(lambda: len(list(read_entries(database))) == 7, "every event to be linked")
        manifest = back_up(
            database, ArchiveStore(api.data_dir / "archives"), TaskLogs(api.data_dir / "logs"), tmp_path / "backup"
        )
    assert manifest.tables["audit_events"].lines == 7


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET owner = 'eve'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events CASCADE",
        "UPDATE audit_links SET hash = 'x'",
        "DELETE FROM audit_links",
        "ALTER TABLE audit_events DISABLE TRIGGER USER",
        "DROP TRIGGER append_only ON audit_events",
        "DROP TABLE audit_links",
        "CREATE OR REPLACE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "UPDATE alembic_version SET version_num = '0001'",
        "CREATE ROLE eve",
    ],
)
def test_the_role_may_not(services_url: str, statement: str) -> None:
    with opened(services_url) as database:
        create_key(database, owner="ada", scopes=[Scope.ADMIN], lifetime=None)
        with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"), database.load() as connection:
            connection.exec_driver_sql(statement)


def test_the_role_leaves_migrations_to_the_owner(owner_url: str) -> None:
    with opened(owner_url) as database:
        upgrade(database, known_revisions()[-2])
        services = make_services_role(database)
    with opened(services) as database, pytest.raises(MayNotMigrate, match="inference-server migrate"):
        upgrade(database)
    with opened(owner_url) as database:
        upgrade(database)
        # What a migration adds is the role's to use only after this.
        assert make_services_role(database) == services
    with opened(services) as database:
        upgrade(database)
        create_key(database, owner="ada", scopes=[Scope.ADMIN], lifetime=None)


def migrate(url: str, login: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "operations", "migrate", "--login", str(login)],
        env={"PATH": os.environ["PATH"], "DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_migrates_and_writes_the_login(owner_url: str, tmp_path: Path) -> None:
    login = tmp_path / "database_url"
    for _ in range(2):
        done = migrate(owner_url, login)
        assert done.returncode == 0, done.stderr
    assert "cannot change the audit trail" in done.stdout
    assert login.stat().st_mode & 0o777 == 0o400
    url = make_url(login.read_text())
    assert str(url.username).endswith("_services")
    assert url.password not in (None, "of-the-owner")
    with opened(login.read_text()) as database:
        create_key(database, owner="ada", scopes=[Scope.ADMIN], lifetime=None)


def test_without_the_right_to_make_a_role_the_services_log_in_as_before(
    postgres: PostgresServer, owner_url: str, tmp_path: Path
) -> None:
    postgres.admin.execute(text(f"ALTER ROLE {make_url(owner_url).username} NOCREATEROLE"))
    done = migrate(owner_url, tmp_path / "database_url")
    assert done.returncode == 0, done.stderr
    assert "may not make another one" in done.stderr
    assert (tmp_path / "database_url").read_text() == owner_url
