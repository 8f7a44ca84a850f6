"""Which image ran, by its digest.

It only adds: a private API of the version before writes tasks and attempts without it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("tasks", sa.Column("image", sa.String(1024)))
    op.add_column("attempts", sa.Column("image", sa.String(1024)))
