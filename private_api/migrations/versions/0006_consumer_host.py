"""The host that a consumer runs its containers on.

It only adds: a private API of the version before writes consumers without it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("consumers", sa.Column("host", sa.String(255)))
