"""What of a task's output could not be sent, and which versions of models refuse such an output.

It only adds: a private API of the version before writes tasks and versions without them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("tasks", sa.Column("warnings", sa.Text))
    op.add_column("tasks", sa.Column("warning_count", sa.Integer, nullable=False, server_default="0"))
    op.add_column("model_versions", sa.Column("strict_output", sa.Boolean, nullable=False, server_default=sa.false()))
