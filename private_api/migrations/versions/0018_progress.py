"""How far a task's run is, as its model says.

It only adds: a private API of the version before writes tasks without it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("tasks", sa.Column("progress", sa.Double))
    op.add_column("tasks", sa.Column("progress_text", sa.String(128)))
