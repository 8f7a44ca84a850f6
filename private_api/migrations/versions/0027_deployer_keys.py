"""The key that a deployment was made with, by whose rights its replicas call others.

It only adds a column. A private API of the version before deploys without noting keys: such replicas call as before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("deployments", sa.Column("key_id", sa.String(16)))
