"""Indexes for lists of tasks, newest first: of everybody, of an owner, of a model, with a status.

It only adds indexes, which a private API of the version before keeps up to date without knowing them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_OWNED = sa.text("owner IS NOT NULL")


def upgrade() -> None:
    """Add the indexes."""
    op.create_index("tasks_newest", "tasks", ["created_at", "id"])
    op.create_index(
        "tasks_newest_of_owner",
        "tasks",
        ["owner", "created_at", "id"],
        postgresql_where=_OWNED,
        sqlite_where=_OWNED,
    )
    op.create_index("tasks_newest_of_model", "tasks", ["model_version_id", "created_at", "id"])
    op.create_index("tasks_newest_by_status", "tasks", ["status", "created_at", "id"])
