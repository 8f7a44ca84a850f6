"""What consumers found of models' images, and which consumers look.

It only adds: a private API of the version before writes consumers that do not look.
"""

import sqlalchemy as sa
from alembic import op

from private_api.columns import Id, Instant

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table and the column."""
    op.create_table(
        "image_findings",
        sa.Column("consumer", sa.String(200), sa.ForeignKey("consumers.name"), primary_key=True),
        sa.Column("model_version_id", Id, sa.ForeignKey("model_versions.id"), primary_key=True),
        sa.Column("finding", sa.String(16), nullable=False),
        sa.Column("detail", sa.Text),
        sa.Column("found_at", Instant, nullable=False),
    )
    op.add_column("consumers", sa.Column("looks_up_images", sa.Boolean, nullable=False, server_default=sa.false()))
