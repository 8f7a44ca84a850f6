"""What each consumer's process claimed last, and the jumps of the database's clock.

It only adds: a private API of the version before writes consumers without it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the table."""
    op.add_column("consumers", sa.Column("process", sa.String(64)))
    op.add_column("consumers", sa.Column("claim_number", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "clock_jumps",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by_s", sa.Float, nullable=False),
    )
