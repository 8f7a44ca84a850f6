"""Deployments, their replicas, the gateways that report on them; tasks with a priority.

It only adds: a private API of the version before claims tasks in the order in which they came, and hosts nothing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_AT = sa.DateTime(timezone=True)
_HOSTED = "status IN ('starting', 'ready', 'draining')"
_LIVE = sa.text("ended_at IS NULL")
_QUEUED = sa.text("status = 'queued'")


def upgrade() -> None:
    """Add the tables, the columns, and the triggers that guard a replica's life."""
    _create_deployments()
    _create_replicas()
    op.create_table(
        "gateways",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("report", sa.Text, nullable=False),
        sa.Column("seen_at", _AT, nullable=False),
    )
    op.add_column("tasks", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
    op.add_column("attempts", sa.Column("replica_uid", sa.String(64)))
    op.add_column("consumers", sa.Column("replica_slots", sa.Integer, nullable=False, server_default="0"))
    op.create_index(
        "tasks_by_priority",
        "tasks",
        ["use_gpu", sa.text("priority DESC"), "not_before", "id"],
        postgresql_where=_QUEUED,
        sqlite_where=_QUEUED,
    )
    op.create_index("attempts_open", "attempts", ["consumer"], postgresql_where=_LIVE, sqlite_where=_LIVE)
    statements = _POSTGRES_TRIGGERS if op.get_bind().dialect.name == "postgresql" else _SQLITE_TRIGGERS
    for statement in statements:
        op.execute(sa.text(statement))


def _create_deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("model_id", _ID, sa.ForeignKey("models.id"), nullable=False, unique=True),
        sa.Column("model_version_id", _ID, sa.ForeignKey("model_versions.id"), nullable=False),
        sa.Column("owner", sa.String(128)),
        sa.Column("serving", sa.Text, nullable=False),
        sa.Column("prefix", sa.String(63), unique=True),
        sa.Column("application", sa.String(128), nullable=False, unique=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("not_before", _AT),
        sa.Column("detail", sa.Text),
        sa.Column("called_at", _AT),
        sa.Column("wanted", sa.Integer, nullable=False),
        sa.Column("wanted_at", _AT, nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("updated_at", _AT, nullable=False),
    )
    op.create_table(
        "deployment_names",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("deployment_id", _ID, sa.ForeignKey("deployments.id"), nullable=False, index=True),
    )


def _create_replicas() -> None:
    op.create_table(
        "replicas",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("uid", sa.String(64), nullable=False, unique=True),
        sa.Column("deployment_id", _ID, sa.ForeignKey("deployments.id"), index=True),
        sa.Column("model_version_id", _ID, sa.ForeignKey("model_versions.id"), nullable=False),
        sa.Column("owner", sa.String(128)),
        sa.Column("use_gpu", sa.Boolean, nullable=False),
        sa.Column("share_gpu", sa.Boolean, nullable=False),
        sa.Column("serves_tasks", sa.Boolean, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("serving", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("consumer", sa.String(200)),
        sa.Column("gpu_uuid", sa.String(200)),
        sa.Column("lease_until", _AT),
        sa.Column("address", sa.String(255)),
        sa.Column("drain_until", _AT),
        sa.Column("reason", sa.String(32)),
        sa.Column("detail", sa.Text),
        sa.Column("exit_code", sa.Integer),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("ready_at", _AT),
        sa.Column("draining_at", _AT),
        sa.Column("ended_at", _AT),
        sa.CheckConstraint(f"({_HOSTED}) = (lease_until IS NOT NULL)", name="hosted_means_leased"),
        sa.CheckConstraint(f"NOT ({_HOSTED}) OR consumer IS NOT NULL", name="hosted_means_hosted_by_one"),
        sa.CheckConstraint("status <> 'ready' OR address IS NOT NULL", name="ready_means_address"),
        sa.CheckConstraint("(status = 'ended') = (ended_at IS NOT NULL)", name="ended_means_ended"),
        sa.CheckConstraint("status NOT IN ('draining', 'ended') OR reason IS NOT NULL", name="ended_means_reason"),
    )
    op.create_index("replicas_live", "replicas", ["status"], postgresql_where=_LIVE, sqlite_where=_LIVE)


_POSTGRES_TRIGGERS = [
    """
    CREATE FUNCTION guard_replica() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.fence < OLD.fence THEN
            RAISE EXCEPTION 'the fence of replica % must not fall', OLD.uid;
        END IF;
        IF OLD.status = 'ended' AND (NEW.status, NEW.fence, NEW.reason, NEW.ended_at)
            IS DISTINCT FROM (OLD.status, OLD.fence, OLD.reason, OLD.ended_at) THEN
            RAISE EXCEPTION 'replica % has ended and must not change', OLD.uid;
        END IF;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER guard_replica BEFORE UPDATE ON replicas FOR EACH ROW EXECUTE FUNCTION guard_replica()",
]
_SQLITE_TRIGGERS = [
    """
    CREATE TRIGGER guard_replica_fence BEFORE UPDATE ON replicas WHEN NEW.fence < OLD.fence
    BEGIN SELECT RAISE(ABORT, 'the fence of a replica must not fall'); END
    """,
    """
    CREATE TRIGGER guard_replica BEFORE UPDATE ON replicas WHEN OLD.status = 'ended' AND (
        NEW.status IS NOT OLD.status OR NEW.fence IS NOT OLD.fence OR NEW.reason IS NOT OLD.reason
        OR NEW.ended_at IS NOT OLD.ended_at)
    BEGIN SELECT RAISE(ABORT, 'the replica has ended and must not change'); END
    """,
]
