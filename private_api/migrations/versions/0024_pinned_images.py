"""Which image every run of a version is of, whatever its tag stands for by then.

It only adds: versions from before, and those that a private API of the version before registers, are not pinned.
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("model_versions", sa.Column("pin", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("model_versions", sa.Column("pinned_image", sa.String(1024)))
