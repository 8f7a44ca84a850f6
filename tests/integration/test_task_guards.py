"""What the database itself guarantees: one event per change, triggers against what must never happen, migrations."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import DatabaseError

from contract.statuses import Phase
from private_api.callers import ANONYMOUS
from private_api.database import Database
from private_api.migrate import upgrade
from private_api.tables import Base
from private_api.tasks.cancel import cancel_task
from tests.databases import migrate_url
from tests.integration.task_bench import Bench


def finished(bench: Bench) -> None:
    bench.commit(bench.submit_and_claim())


def failed(bench: Bench) -> None:
    bench.fail(bench.submit_and_claim())


def cancelled(bench: Bench) -> None:
    cancel_task(bench.database, bench.submit(), ANONYMOUS)


def execute(bench: Bench, sql: str) -> None:
    with bench.database.engine.connect() as connection:
        connection.execution_options(writes=True).execute(text(sql))
        connection.commit()


def refused(bench: Bench, sql: str) -> str:
    with pytest.raises(DatabaseError) as caught:
        execute(bench, sql)
    return str(caught.value.orig)


def refused_change(bench: Bench, change: str) -> str:
    """Why the database refuses to change its one task so."""
    return refused(bench, f"UPDATE tasks SET {change}")  # noqa: S608 - the changes stand below


def test_every_change_of_status_leaves_exactly_one_event(bench: Bench) -> None:
    held = bench.submit_and_claim()
    for phase in (Phase.PREPARING, Phase.RUNNING, Phase.RUNNING, Phase.DELIVERING):
        bench.beat(held, phase)
    bench.expire(held.uid)
    bench.beat(held, Phase.RUNNING)
    bench.release(held, blameless=True)
    again = bench.claim(uid=held.uid)
    commit = bench.upload(again)
    for _ in range(2):
        bench.commit(again, commit)
    assert bench.events(held.uid) == [
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
def test_a_task_that_has_ended_refuses_every_change_of_its_outcome(bench: Bench, end: Callable[[Bench], None]) -> None:
    end(bench)
    for change in (
        "status = 'queued'",
        "status = 'running', lease_owner = 'eve', lease_until = created_at, ended_at = NULL, reason = NULL",
        "fence = fence + 1",
        "ended_at = created_at",
        "reason = 'no_output'",
    ):
        assert "must not change" in refused_change(bench, change)


def test_the_output_of_a_task_that_has_ended_cannot_be_exchanged(bench: Bench) -> None:
    finished(bench)
    assert "must not change" in refused_change(bench, "output_id = input_id")


def test_a_fence_never_falls(bench: Bench) -> None:
    bench.submit_and_claim()
    assert "must not fall" in refused_change(bench, "fence = 0")


def test_what_happened_cannot_be_rewritten(bench: Bench) -> None:
    failed(bench)
    for sql in (
        "UPDATE events SET new_status = 'finished'",
        "DELETE FROM events",
        "DELETE FROM attempts",
        "UPDATE attempts SET outcome = 'finished'",
    ):
        assert "append-only" in (said := refused(bench, sql)) or "ends once" in said
    assert "constraint" in refused(bench, "DELETE FROM tasks").lower()


def test_a_row_that_contradicts_itself_is_refused(bench: Bench) -> None:
    bench.submit()
    for change in (
        "status = 'running'",
        "lease_owner = 'eve'",
        "status = 'finished', ended_at = created_at",
        "status = 'failed', ended_at = created_at",
        "ended_at = created_at",
    ):
        assert "constraint" in refused_change(bench, change).lower()


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


def test_two_processes_may_upgrade_an_empty_database_at_once(empty_database_url: str) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(migrate_url, [empty_database_url] * 4))
    database = Database(empty_database_url)
    try:
        assert set(Base.metadata.tables) < set(inspect(database.engine).get_table_names())
    finally:
        database.close()
