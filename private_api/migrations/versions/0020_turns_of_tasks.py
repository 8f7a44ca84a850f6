"""Which replica comes back to a GPU that another one left to the tasks that waited then, and when that was.

It only adds: a private API of the version before writes replicas without it, and lets every task of a higher priority
go before them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, and the index by which one sees whether tasks get GPUs."""
    op.add_column("replicas", sa.Column("yielded_at", sa.DateTime(timezone=True)))
    op.create_index("attempts_claimed", "attempts", ["claimed_at"])
