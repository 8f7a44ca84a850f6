"""Consumers that belong to the owner of a key.

It only adds: a private API of the version before writes consumers without an owner, as they are where the service token
is what consumers prove themselves with.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("consumers", sa.Column("owner", sa.String(128)))
