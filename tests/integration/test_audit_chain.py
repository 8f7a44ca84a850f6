"""That nobody changes the audit trail unseen: its guards, its chain, and the commands that check and export it."""

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError

from contract.access import Caller
from private_api.audit.chain import (
    check_entries,
    check_tail,
    last_link,
    link_events,
    newest_event,
    read_entries,
)
from private_api.audit.record import record_alone
from private_api.audit_tables import Action, AuditEventRow
from private_api.database import Database
from private_api.loops.linker import Linker
from tests.integration.test_keys_command import run

ADA = Caller("ada", frozenset(), key_id="0123456789abcdef", address="192.0.2.7")


@pytest.fixture
def trail(database: Database) -> Database:
    """Six events, five of them linked."""
    for number in range(6):
        if number == 5:
            link_events(database, until=newest_event(database))
        record_alone(database, ADA, Action.READ_OUTPUT, f"task {number}")
    return database


def audit(database: Database, *arguments: str) -> tuple[int, str]:
    """The exit code, and what was printed."""
    done = run("operations", "audit", *arguments, environment={"DATABASE_URL": database.url})
    return done.returncode, done.stdout + done.stderr


def as_root(database: Database, *statements: str) -> None:
    """As somebody who owns the tables, and can drop their guards."""
    with database.load() as connection:
        _drop_guards(connection)
        for statement in statements:
            connection.exec_driver_sql(statement)


def _drop_guards(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        for table in ("audit_events", "audit_links"):
            connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        return
    names = connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name >= 'audit_'"))
    for name in names.all():
        connection.exec_driver_sql(f"DROP TRIGGER {name}")


@pytest.mark.parametrize("table", ["audit_events", "audit_links"])
@pytest.mark.parametrize("change", ["UPDATE {} SET {} = 7", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_rows_are_only_ever_added(trail: Database, table: str, change: str) -> None:
    if trail.is_sqlite and "TRUNCATE" in change:
        pytest.skip("SQLite has no TRUNCATE")
    column = {"audit_events": "owner", "audit_links": "hash"}[table]
    with pytest.raises(DBAPIError, match="append-only"), trail.write() as session:
        session.execute(text(change.format(table, column)))


def test_a_whole_trail_is_verified(trail: Database) -> None:
    code, said = audit(trail, "verify")
    assert code == 0
    assert "whole up to entry 5" in said
    assert "1 newer events are not linked yet" in said


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (("UPDATE audit_events SET owner = 'eve' WHERE id = 3",), "entry 3 (task.read_output task 2) was changed"),
        (("UPDATE audit_links SET hash = 'x' WHERE position = 3",), "entry 3"),
        (
            ("DELETE FROM audit_links WHERE position = 3", "DELETE FROM audit_events WHERE id = 3"),
            "before entry 4 should be 3, but 2 is",
        ),
        (
            ("DELETE FROM audit_links WHERE position = 1", "DELETE FROM audit_events WHERE id = 1"),
            "before entry 2 should be 1, but 0 is",
        ),
        (
            ("DELETE FROM audit_links WHERE position = 3",),
            "before entry 4 should be 3, but 2 is",
        ),
    ],
    ids=["changed", "other hash", "removed", "first removed", "link removed"],
)
def test_a_change_is_found(trail: Database, statements: tuple[str, ...], says: str) -> None:
    as_root(trail, *statements)
    code, said = audit(trail, "verify")
    assert (code, says in said) == (1, True), said


def test_an_event_that_is_missing_at_the_end_is_found(trail: Database) -> None:
    with trail.load() as connection:
        if not trail.is_sqlite:
            connection.exec_driver_sql("ALTER TABLE audit_links DROP CONSTRAINT audit_links_event_id_fkey")
        else:
            pytest.skip("SQLite keeps the rule that links refer to events")
    as_root(trail, "DELETE FROM audit_events WHERE id >= 5")
    code, said = audit(trail, "verify")
    assert (code, "entry 5 is linked, but its event is missing" in said) == (1, True), said


def test_a_trail_that_grows_meanwhile_is_whole(trail: Database) -> None:
    link = last_link(trail)
    assert link is not None
    entries = list(check_entries(read_entries(trail), from_start=True))
    link_events(trail, until=newest_event(trail))
    assert check_tail(trail, entries[-1], linked=link.position) == 0


def test_an_event_put_among_older_ones_is_found(trail: Database) -> None:
    as_root(trail, "UPDATE audit_events SET id = 0 WHERE id = 6")
    code, said = audit(trail, "verify")
    assert (code, "the event 0 was inserted" in said) == (1, True), said


def test_a_cut_tail_is_found_by_a_hash_that_was_noted(trail: Database) -> None:
    noted = list(read_entries(trail))[-1].hash
    assert audit(trail, "verify", "--head", noted)[0] == 0
    as_root(trail, "DELETE FROM audit_links WHERE position > 3", "DELETE FROM audit_events WHERE id > 3")
    assert audit(trail, "verify")[0] == 0
    code, said = audit(trail, "verify", "--head", noted)
    assert (code, noted in said) == (1, True), said


def test_an_export_is_verified_where_no_server_is(trail: Database, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    assert audit(trail, "export", str(file))[0] == 0
    assert run("operations", "audit", "verify", str(file)).returncode == 0
    lines = file.read_text().splitlines()
    assert [json.loads(line)["object"] for line in lines] == [f"task {number}" for number in range(5)]
    assert json.loads(lines[0])["address"] == "192.0.2.7"
    assert [sum_up(line) for line in lines] == [json.loads(line)["hash"] for line in lines]
    # A part of it, too: its first entry says what it follows.
    assert audit(trail, "export", "--after", "2")[1].splitlines() == lines[2:]
    assert audit(trail, "export", "--after", "99") == (0, "")
    file.write_text("\n".join([*lines[:2], lines[2].replace("ada", "eve"), *lines[3:]]))
    assert run("operations", "audit", "verify", str(file)).returncode == 1
    file.write_text("nothing of the kind\n")
    done = run("operations", "audit", "verify", str(file))
    assert (done.returncode, "line 1: not an entry" in done.stderr) == (2, True)


def sum_up(line: str) -> str:
    """The hash of an entry as docs/operations/audit.md says how, without the server's own code."""
    entry = json.loads(line)
    names = ("action", "address", "at", "detail", "id", "key_id", "object", "owner", "request_id")
    fields = {name: entry[name] for name in names}
    fields["at"] = datetime.fromisoformat(entry["at"]).isoformat(timespec="microseconds")
    text = json.dumps(fields, separators=(",", ":"))
    return hashlib.sha256(f"{entry['previous']}\n{text}".encode()).hexdigest()


def test_nothing_is_linked_before_what_has_a_smaller_id(postgres_url: str) -> None:
    database = Database(postgres_url)
    linker = Linker(database)

    def linked() -> list[str]:
        return [entry.object for entry in read_entries(database)]

    with database.write() as slow:
        slow.add(_event(database, "slow"))
        slow.flush()
        record_alone(database, ADA, Action.READ_LOG, "fast")
        linker.step()
        linker.step()
        assert linked() == []
    linker.step()
    linker.step()
    assert linked() == ["slow", "fast"]
    database.close()


def _event(database: Database, name: str) -> AuditEventRow:
    with database.read() as session:
        return AuditEventRow(at=database.now(session), action="task.read_log", object=name)


def test_two_processes_make_one_chain(database: Database) -> None:
    for number in range(3):
        record_alone(database, ADA, Action.READ_LOG, str(number))
    steps: list[Callable[[], None]] = [Linker(database).step for _ in range(2)]
    for step in steps * 2:
        step()
    assert [entry.position for entry in read_entries(database)] == [1, 2, 3]
    with database.read() as session:
        assert len(session.scalars(select(AuditEventRow)).all()) == 3
