"""The runtime that a model's containers have, where it is not the Engine's default.

It only adds: what a private API of the version before writes has none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("model_versions", sa.Column("runtime", sa.String(64)))
