"""The server's id, made here once: consumers label what they run with it, so that servers can share an Engine.

It only adds: a private API of the version before does not read it.
"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table with its one row."""
    server = op.create_table("server", sa.Column("id", sa.String(16), primary_key=True))
    op.bulk_insert(server, [{"id": secrets.token_hex(4)}])
