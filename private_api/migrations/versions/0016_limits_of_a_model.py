"""What runs of a model may take beside memory: of /dev/shm and /tmp, in processes and in cores.

It only adds: a private API of the version before registers versions without them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    for name in ("shared_memory_bytes", "temporary_bytes"):
        op.add_column("model_versions", sa.Column(name, sa.BigInteger))
    op.add_column("model_versions", sa.Column("pids_limit", sa.Integer))
    op.add_column("model_versions", sa.Column("cpus", sa.Double))
