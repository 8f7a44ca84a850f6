"""How much of a task's image its consumer has pulled.

It only adds: a private API of the version before writes tasks without it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("tasks", sa.Column("pull_percent", sa.Integer))
