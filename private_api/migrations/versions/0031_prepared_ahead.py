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
    """Add the columns, and an index of the few attempts that are prepared ahead."""
    op.add_column("attempts", sa.Column("begun_at", sa.DateTime(timezone=True)))
    op.add_column("attempts", sa.Column("is_ahead", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index("attempts_ahead", "attempts", ["consumer"], postgresql_where=_AHEAD, sqlite_where=_AHEAD)
