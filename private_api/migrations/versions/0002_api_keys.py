"""Keys, and tasks that belong to an owner.

It only adds: a private API of the version before goes on beside it while it is replaced. That one knows no owner, and
finds submissions by `idempotency_key` alone, so that column stays the one of tasks without an owner, unique as ever;
tasks with an owner have a column of their own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_AT = sa.DateTime(timezone=True)
_OWNED = sa.text("owner IS NOT NULL")


def upgrade() -> None:
    """Add the table, two columns and their indexes."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("scopes", sa.String(255), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("expires_at", _AT),
        sa.Column("revoked_at", _AT),
        sa.Column("last_used_at", _AT),
    )
    op.add_column("tasks", sa.Column("owner", sa.String(128)))
    op.add_column("tasks", sa.Column("owner_idempotency_key", sa.String(255)))
    # Partial: no existing task has an owner, so both are created at once however many tasks there are.
    op.create_index("tasks_of_owner", "tasks", ["owner", "id"], postgresql_where=_OWNED, sqlite_where=_OWNED)
    op.create_index(
        "tasks_owner_idempotency_key",
        "tasks",
        ["owner", "owner_idempotency_key"],
        unique=True,
        postgresql_where=_OWNED,
        sqlite_where=_OWNED,
    )
