"""The default version of a model; models and versions that are retired or deleted.

It only adds: a private API of the version before runs the newest version of every model, also of a retired or deleted
one, and a version that it registers is the default unless another one was chosen.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the columns. Existing models have no chosen default: theirs is the newest version."""
    op.add_column("models", sa.Column("default_version", sa.Integer))
    op.add_column("models", sa.Column("retired_at", _AT))
    op.add_column("model_versions", sa.Column("retired_at", _AT))
    op.add_column("model_versions", sa.Column("deleted_at", _AT))
