"""What the database itself guarantees: one event per change, triggers against what must never happen, migrations."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, event, inspect, text
from sqlalchemy.exc import DatabaseError

from contract.access import ANONYMOUS
from contract.statuses import Phase
from private_api.columns import Base
from private_api.database import Database
from private_api.migrate import upgrade
from private_api.tasks.cancel import cancel_task
from tests.databases import migrate_url
from tests.integration.task_harness import Harness
from tests.waiting import START_S


def finished(harness: Harness) -> None:
    harness.commit(harness.submit_and_claim())


def failed(harness: Harness) -> None:
    harness.fail(harness.submit_and_claim())


def cancelled(harness: Harness) -> None:
    cancel_task(harness.database, harness.submit(), ANONYMOUS)


def execute(harness: Harness, sql: str) -> None:
    with harness.database.engine.connect() as connection:
        connection.execution_options(writes=True).execute(text(sql))
        connection.commit()


def refused(harness: Harness, sql: str) -> str:
    with pytest.raises(DatabaseError) as caught:
        execute(harness, sql)
    return str(caught.value.orig)


def refused_change(harness: Harness, change: str) -> str:
    """Why the database refuses to change its one task so."""
    return refused(harness, f"UPDATE tasks SET {change}")  # noqa: S608 - the changes stand below


def test_every_change_of_status_leaves_exactly_one_event(harness: Harness) -> None:
    held = harness.submit_and_claim()
    for phase in (Phase.PREPARING, Phase.RUNNING, Phase.RUNNING, Phase.DELIVERING):
        harness.beat(held, phase)
    harness.expire(held.uid)
    harness.beat(held, Phase.RUNNING)
    harness.release(held, blameless=True)
    again = harness.claim(uid=held.uid)
    commit = harness.upload(again)
    for _ in range(2):
        harness.commit(again, commit)
    assert harness.events(held.uid) == [
        (None, "queued"),
        ("queued", "leased"),
        ("leased", "running"),
        ("running", "queued"),
        ("queued", "running"),
        ("running", "queued"),
        ("queued", "leased"),
        ("leased", "finished"),
    ]


@pytest.mark.parametrize("end", [finished, failed, cancelled])
def test_a_task_that_has_ended_refuses_every_change_of_its_outcome(
    harness: Harness, end: Callable[[Harness], None]
) -> None:
    end(harness)
    for change in (
        "status = 'queued'",
        "status = 'running', lease_owner = 'eve', lease_until = created_at, ended_at = NULL, reason = NULL",
        "fence = fence + 1",
        "ended_at = created_at",
        "reason = 'no_output'",
    ):
        assert "must not change" in refused_change(harness, change)


def test_the_output_of_a_task_that_has_ended_cannot_be_exchanged(harness: Harness) -> None:
    finished(harness)
    assert "must not change" in refused_change(harness, "output_id = input_id")


def test_a_fence_never_falls(harness: Harness) -> None:
    harness.submit_and_claim()
    assert "must not fall" in refused_change(harness, "fence = 0")


def test_what_happened_cannot_be_rewritten(harness: Harness) -> None:
    failed(harness)
    for sql in (
        "UPDATE events SET new_status = 'finished'",
        "DELETE FROM events",
        "DELETE FROM attempts",
        "UPDATE attempts SET outcome = 'finished'",
    ):
        assert "append-only" in (said := refused(harness, sql)) or "ends once" in said
    assert "constraint" in refused(harness, "DELETE FROM tasks").lower()


def test_a_row_that_contradicts_itself_is_refused(harness: Harness) -> None:
    harness.submit()
    for change in (
        "status = 'running'",
        "lease_owner = 'eve'",
        "status = 'finished', ended_at = created_at",
        "status = 'failed', ended_at = created_at",
        "ended_at = created_at",
    ):
        assert "constraint" in refused_change(harness, change).lower()


def test_the_migrations_make_the_tables_that_the_code_maps(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, Base.metadata)
    # Indexes are the migrations' own: the code never names one.
    assert [difference for difference in differences if difference[0] != "remove_index"] == []


def test_upgrading_a_database_again_changes_nothing(empty_database_url: str) -> None:
    for _ in range(2):
        migrate_url(empty_database_url)
    database = Database(empty_database_url)
    try:
        upgrade(database)
        assert {*Base.metadata.tables, "alembic_version"} == set(inspect(database.engine).get_table_names())
    finally:
        database.close()


def _migrate_once_all_are_here(url: str, barrier: Barrier) -> None:
    # Whoever migrates in several transactions lets the others in between.
    event.listen(Engine, "begin", lambda _connection: time.sleep(0.02))
    barrier.wait(START_S)
    migrate_url(url)


def test_processes_may_upgrade_an_empty_database_at_once(empty_database_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    starting = [
        context.Process(target=_migrate_once_all_are_here, args=(empty_database_url, barrier)) for _ in range(3)
    ]
    for process in starting:
        process.start()
    for process in starting:
        process.join(START_S)
    assert [process.exitcode for process in starting] == [0, 0, 0]
    database = Database(empty_database_url)
    try:
        assert set(Base.metadata.tables) < set(inspect(database.engine).get_table_names())
    finally:
        database.close()
