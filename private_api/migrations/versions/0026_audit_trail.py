"""The audit trail: who did what to which object, in rows that nobody changes.

It only adds tables. A private API of the version before writes nothing to them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TABLES = ("audit_events", "audit_links")


def upgrade() -> None:
    """Create the tables and their guards."""
    op.create_table(
        "audit_events",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner", sa.String(128)),
        sa.Column("key_id", sa.String(16)),
        sa.Column("address", sa.String(64)),
        sa.Column("request_id", sa.String(128)),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("object", sa.String(300), nullable=False),
        sa.Column("detail", sa.Text),
    )
    op.create_table(
        "audit_links",
        sa.Column("position", _ID, primary_key=True, autoincrement=False),
        sa.Column("event_id", _ID, sa.ForeignKey("audit_events.id"), nullable=False, unique=True),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    is_postgres = op.get_bind().dialect.name == "postgresql"
    if is_postgres:
        op.execute(sa.text(_POSTGRES_FUNCTION))
    for table in _TABLES:
        for statement in _POSTGRES_GUARDS if is_postgres else _SQLITE_GUARDS:
            op.execute(sa.text(statement.format(table=table)))


_POSTGRES_FUNCTION = """
    CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'rows of % are append-only', TG_TABLE_NAME;
    END $$
"""
_POSTGRES_GUARDS = [
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()
    """,
    """
    CREATE TRIGGER never_empty BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()
    """,
]
_SQLITE_GUARDS = [
    """
    CREATE TRIGGER append_only_{table}_update BEFORE UPDATE ON {table}
    BEGIN SELECT RAISE(ABORT, 'rows of {table} are append-only'); END
    """,
    """
    CREATE TRIGGER append_only_{table}_delete BEFORE DELETE ON {table}
    BEGIN SELECT RAISE(ABORT, 'rows of {table} are append-only'); END
    """,
]
