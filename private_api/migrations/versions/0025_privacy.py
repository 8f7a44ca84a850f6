"""Tombstones of tasks, and what everybody may know of how a replica ended, beside what its container said.

It only adds columns and indexes, and lets the guards of attempts and events pass two things: that the text of an ended
attempt is taken away, and that what hangs on a tombstone is removed. A private API of the version before does neither,
and writes replicas without summaries.
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_TO_FORGET = sa.text("ended_at IS NOT NULL AND forgotten_at IS NULL")
_FORGOTTEN = sa.text("forgotten_at IS NOT NULL")


def upgrade() -> None:
    """Add the columns and the indexes, and replace the guards."""
    for table in ("deployments", "replicas"):
        op.add_column(table, sa.Column("summary", sa.Text))
    op.add_column("tasks", sa.Column("forgotten_at", sa.DateTime(timezone=True)))
    op.create_index("tasks_to_forget", "tasks", ["id"], postgresql_where=_TO_FORGET, sqlite_where=_TO_FORGET)
    op.create_index("tasks_forgotten", "tasks", ["ended_at"], postgresql_where=_FORGOTTEN, sqlite_where=_FORGOTTEN)
    # For the database itself, which looks for tasks of each archive that is removed.
    op.create_index("tasks_of_input", "tasks", ["input_id"])
    op.create_index("tasks_of_output", "tasks", ["output_id"])
    op.create_index("versions_of_archive", "model_versions", ["archive_id"])
    op.create_index("outbox_of_uid", "outbox", ["uid"])
    statements = _POSTGRES_GUARDS if op.get_bind().dialect.name == "postgresql" else _SQLITE_GUARDS
    for statement in statements:
        op.execute(sa.text(statement))


_POSTGRES_GUARDS = [
    """
    CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            IF EXISTS (SELECT 1 FROM tasks WHERE id = OLD.task_id AND forgotten_at IS NOT NULL) THEN
                RETURN OLD;
            END IF;
        ELSIF TG_TABLE_NAME = 'attempts' THEN
            IF NEW.detail IS NULL AND to_jsonb(NEW) - 'detail' = to_jsonb(OLD) - 'detail' THEN
                RETURN NEW;
            END IF;
        END IF;
        RAISE EXCEPTION 'rows of % are append-only', TG_TABLE_NAME;
    END $$
    """,
]
_KEPT = "NOT EXISTS (SELECT 1 FROM tasks WHERE id = OLD.task_id AND forgotten_at IS NOT NULL)"
_SQLITE_GUARDS = [
    "DROP TRIGGER append_only_events_delete",
    f"""
    CREATE TRIGGER append_only_events_delete BEFORE DELETE ON events WHEN {_KEPT}
    BEGIN SELECT RAISE(ABORT, 'rows of events are append-only'); END
    """,
    "DROP TRIGGER append_only_attempts",
    f"""
    CREATE TRIGGER append_only_attempts BEFORE DELETE ON attempts WHEN {_KEPT}
    BEGIN SELECT RAISE(ABORT, 'rows of attempts are append-only'); END
    """,
    "DROP TRIGGER end_once",
    """
    CREATE TRIGGER end_once BEFORE UPDATE ON attempts WHEN OLD.ended_at IS NOT NULL AND (
        NEW.detail IS NOT NULL OR NEW.id IS NOT OLD.id OR NEW.task_id IS NOT OLD.task_id OR NEW.fence IS NOT OLD.fence
        OR NEW.consumer IS NOT OLD.consumer OR NEW.gpu_uuid IS NOT OLD.gpu_uuid
        OR NEW.replica_uid IS NOT OLD.replica_uid OR NEW.image IS NOT OLD.image
        OR NEW.claimed_at IS NOT OLD.claimed_at
        OR NEW.ended_at IS NOT OLD.ended_at OR NEW.outcome IS NOT OLD.outcome)
    BEGIN SELECT RAISE(ABORT, 'an attempt ends once'); END
    """,
]
