"""The first schema: tables, indexes for the claim and the reaper, and the triggers that guard a task's life.

It stays clean on PostgreSQL and SQLite: what differs between them is the text of the triggers.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_AT = sa.DateTime(timezone=True)
_HELD = "status IN ('leased', 'running')"
_TERMINAL = "status IN ('finished', 'failed', 'cancelled')"


def upgrade() -> None:
    """Create everything."""
    _create_models()
    _create_tasks()
    _create_records()
    statements = _POSTGRES_TRIGGERS if op.get_bind().dialect.name == "postgresql" else _SQLITE_TRIGGERS
    for statement in statements:
        op.execute(sa.text(statement))


def _create_models() -> None:
    op.create_table(
        "archives",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("key", sa.String(255), nullable=False, unique=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("removed_at", _AT),
    )
    op.create_table(
        "models",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("human_readable_id", sa.String(128), nullable=False, unique=True),
        sa.Column("newest_version", sa.Integer, nullable=False),
        sa.Column("created_at", _AT, nullable=False),
    )
    op.create_table(
        "model_versions",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("model_id", _ID, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("container_tag", sa.String(512), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("use_gpu", sa.Boolean, nullable=False),
        sa.Column("pull_policy", sa.String(16), nullable=False),
        sa.Column("isolation", sa.String(16), nullable=False),
        sa.Column("time_limit_s", sa.Integer, nullable=False),
        sa.Column("memory_limit_bytes", sa.BigInteger),
        sa.Column("archive_id", _ID, sa.ForeignKey("archives.id")),
        sa.Column("created_at", _AT, nullable=False),
        sa.UniqueConstraint("model_id", "number"),
    )


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("uid", sa.String(64), nullable=False, unique=True),
        sa.Column("idempotency_key", sa.String(255), unique=True),
        sa.Column("model_version_id", _ID, sa.ForeignKey("model_versions.id"), nullable=False),
        sa.Column("use_gpu", sa.Boolean, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("phase", sa.String(16)),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("infrastructure_failures", sa.Integer, nullable=False),
        sa.Column("lease_owner", sa.String(200)),
        sa.Column("lease_until", _AT),
        sa.Column("not_before", _AT, nullable=False),
        sa.Column("deadline_at", _AT),
        sa.Column("cancel_at", _AT),
        sa.Column("deleted_at", _AT),
        sa.Column("input_id", _ID, sa.ForeignKey("archives.id"), nullable=False),
        sa.Column("output_id", _ID, sa.ForeignKey("archives.id")),
        sa.Column("reason", sa.String(32)),
        sa.Column("detail", sa.Text),
        sa.Column("exit_code", sa.Integer),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("started_at", _AT),
        sa.Column("ended_at", _AT),
        sa.CheckConstraint(f"({_HELD}) = (lease_owner IS NOT NULL)", name="held_means_owned"),
        sa.CheckConstraint(f"({_HELD}) = (lease_until IS NOT NULL)", name="held_means_leased"),
        sa.CheckConstraint("(status = 'finished') = (output_id IS NOT NULL)", name="finished_means_output"),
        sa.CheckConstraint(f"({_TERMINAL}) = (ended_at IS NOT NULL)", name="terminal_means_ended"),
        sa.CheckConstraint("(status IN ('failed', 'cancelled')) = (reason IS NOT NULL)", name="failed_means_reason"),
    )
    # For the claim, the reaper and retention. Each index covers only the rows that it is for.
    op.create_index(
        "tasks_claimable",
        "tasks",
        ["use_gpu", "not_before", "id"],
        postgresql_where=sa.text("status = 'queued'"),
        sqlite_where=sa.text("status = 'queued'"),
    )
    op.create_index(
        "tasks_held", "tasks", ["lease_until"], postgresql_where=sa.text(_HELD), sqlite_where=sa.text(_HELD)
    )
    op.create_index(
        "tasks_ended", "tasks", ["ended_at"], postgresql_where=sa.text(_TERMINAL), sqlite_where=sa.text(_TERMINAL)
    )
    op.create_index("tasks_model_version", "tasks", ["model_version_id", "ended_at"])


def _create_records() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("task_id", _ID, sa.ForeignKey("tasks.id"), nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("consumer", sa.String(200), nullable=False),
        sa.Column("gpu_uuid", sa.String(200)),
        sa.Column("claimed_at", _AT, nullable=False),
        sa.Column("ended_at", _AT),
        sa.Column("outcome", sa.String(32)),
        sa.Column("detail", sa.Text),
        sa.UniqueConstraint("task_id", "fence"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("uid", sa.String(64), nullable=False),
        sa.Column("due_at", _AT, nullable=False),
    )
    op.create_index("outbox_due", "outbox", ["due_at", "id"])
    op.create_table(
        "consumers",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("gpu_uuid", sa.String(200)),
        sa.Column("accepts_cpu_tasks", sa.Boolean, nullable=False),
        sa.Column("first_seen_at", _AT, nullable=False),
        sa.Column("seen_at", _AT, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("task_id", _ID, sa.ForeignKey("tasks.id"), nullable=False, index=True),
        sa.Column("at", _AT, nullable=False),
        sa.Column("old_status", sa.String(16)),
        sa.Column("new_status", sa.String(16), nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String(32)),
    )
    op.create_table(
        "loop_heartbeats",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("at", _AT, nullable=False),
    )


_POSTGRES_TRIGGERS = [
    """
    CREATE FUNCTION guard_task() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.fence < OLD.fence THEN
            RAISE EXCEPTION 'the fence of task % must not fall', OLD.uid;
        END IF;
        IF OLD.status IN ('finished', 'failed', 'cancelled') AND (
            NEW.status, NEW.fence, NEW.output_id, NEW.reason, NEW.ended_at
        ) IS DISTINCT FROM (OLD.status, OLD.fence, OLD.output_id, OLD.reason, OLD.ended_at) THEN
            RAISE EXCEPTION 'task % has ended and must not change', OLD.uid;
        END IF;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER guard_task BEFORE UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION guard_task()",
    """
    CREATE FUNCTION record_event() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO events (task_id, at, old_status, new_status, fence, reason)
        VALUES (NEW.id, clock_timestamp(), CASE WHEN TG_OP = 'UPDATE' THEN OLD.status END, NEW.status, NEW.fence,
                NEW.reason);
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER record_first_event AFTER INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION record_event()",
    """
    CREATE TRIGGER record_event AFTER UPDATE OF status ON tasks FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION record_event()
    """,
    """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'rows of % are append-only', TG_TABLE_NAME;
    END $$
    """,
    "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER append_only BEFORE DELETE ON attempts FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    """
    CREATE TRIGGER end_once BEFORE UPDATE ON attempts FOR EACH ROW WHEN (OLD.ended_at IS NOT NULL)
    EXECUTE FUNCTION refuse_change()
    """,
]

_ENDED = "OLD.status IN ('finished', 'failed', 'cancelled')"
_SQLITE_TRIGGERS = [
    """
    CREATE TRIGGER guard_fence BEFORE UPDATE ON tasks WHEN NEW.fence < OLD.fence
    BEGIN SELECT RAISE(ABORT, 'the fence of a task must not fall'); END
    """,
    f"""
    CREATE TRIGGER guard_task BEFORE UPDATE ON tasks WHEN {_ENDED} AND (
        NEW.status IS NOT OLD.status OR NEW.fence IS NOT OLD.fence OR NEW.output_id IS NOT OLD.output_id
        OR NEW.reason IS NOT OLD.reason OR NEW.ended_at IS NOT OLD.ended_at)
    BEGIN SELECT RAISE(ABORT, 'the task has ended and must not change'); END
    """,
    """
    CREATE TRIGGER record_first_event AFTER INSERT ON tasks
    BEGIN INSERT INTO events (task_id, at, new_status, fence, reason)
    VALUES (NEW.id, strftime('%Y-%m-%d %H\\:%M\\:%f000', 'now'), NEW.status, NEW.fence, NEW.reason); END
    """,
    """
    CREATE TRIGGER record_event AFTER UPDATE OF status ON tasks WHEN OLD.status IS NOT NEW.status
    BEGIN INSERT INTO events (task_id, at, old_status, new_status, fence, reason)
    VALUES (NEW.id, strftime('%Y-%m-%d %H\\:%M\\:%f000', 'now'), OLD.status, NEW.status, NEW.fence, NEW.reason); END
    """,
    """
    CREATE TRIGGER append_only_events_update BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'rows of events are append-only'); END
    """,
    """
    CREATE TRIGGER append_only_events_delete BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'rows of events are append-only'); END
    """,
    """
    CREATE TRIGGER append_only_attempts BEFORE DELETE ON attempts
    BEGIN SELECT RAISE(ABORT, 'rows of attempts are append-only'); END
    """,
    """
    CREATE TRIGGER end_once BEFORE UPDATE ON attempts WHEN OLD.ended_at IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'an attempt ends once'); END
    """,
]
