"""Whether a consumer's replicas reach only what they are given.

It only adds: a consumer of the version before does not say it, and hosts what it hosted.
"""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("consumers", sa.Column("guards_replicas", sa.Boolean, nullable=False, server_default=sa.true()))
