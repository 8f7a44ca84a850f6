"""Why a consumer takes nothing, and how much of its disk a task may fill.

It only adds: a private API of the version before writes consumers without them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("consumers", sa.Column("trouble", sa.Text))
    op.add_column("consumers", sa.Column("free_bytes", sa.BigInteger))
