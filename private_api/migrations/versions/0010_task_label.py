"""The label of a task, and lists of the tasks with one label, newest first.

It only adds: a private API of the version before writes tasks without a label.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_LABELLED = sa.text("label IS NOT NULL")


def upgrade() -> None:
    """Add the column and its index."""
    op.add_column("tasks", sa.Column("label", sa.String(128)))
    op.create_index(
        "tasks_newest_by_label",
        "tasks",
        ["label", "created_at", "id"],
        postgresql_where=_LABELLED,
        sqlite_where=_LABELLED,
    )
