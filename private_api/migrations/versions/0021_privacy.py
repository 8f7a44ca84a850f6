"""What everybody may know of how a replica ended, beside what its container said.

It only adds: a private API of the version before writes replicas without summaries.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    for table in ("deployments", "replicas"):
        op.add_column(table, sa.Column("summary", sa.Text))
