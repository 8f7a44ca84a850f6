"""Which task another one is a rerun of, and since when a consumer is draining.

It only adds columns, which a private API of the version before leaves empty.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("tasks", sa.Column("rerun_of", sa.String(64)))
    op.add_column("consumers", sa.Column("draining_at", sa.DateTime(timezone=True)))
