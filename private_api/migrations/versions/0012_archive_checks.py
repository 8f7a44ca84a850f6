"""When an archive's bytes were last read and found to be what was stored, and since when they are known not to be.

It only adds: a private API of the version before writes archives without them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_KEPT = sa.text("removed_at IS NULL")
_DAMAGED = sa.text("removed_at IS NULL AND damaged_at IS NOT NULL")


def upgrade() -> None:
    """Add the columns, and the indexes of the order in which archives are read and of those that are damaged."""
    op.add_column("archives", sa.Column("checked_at", sa.DateTime(timezone=True)))
    op.add_column("archives", sa.Column("damaged_at", sa.DateTime(timezone=True)))
    op.create_index("archives_by_check", "archives", ["checked_at", "id"], postgresql_where=_KEPT, sqlite_where=_KEPT)
    op.create_index("archives_damaged", "archives", ["checked_at"], postgresql_where=_DAMAGED, sqlite_where=_DAMAGED)
