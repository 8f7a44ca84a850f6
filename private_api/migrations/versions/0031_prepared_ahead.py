"""Which attempts are prepared ahead: while another task still runs at their consumer.

It only adds: a private API of the version before claims nothing ahead, and sees such an attempt as one that prepares.
"""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

_AHEAD = sa.text("is_ahead AND ended_at IS NULL")


def upgrade() -> None:
    """Add the column, and an index of the few attempts for which it says something."""
    op.add_column("attempts", sa.Column("is_ahead", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index("attempts_ahead", "attempts", ["consumer"], postgresql_where=_AHEAD, sqlite_where=_AHEAD)
