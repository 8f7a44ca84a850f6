"""What quotas are counted by: whose an archive is, what a key and its tasks are limited to, what the server's limit is.

It only adds: what a private API of the version before writes has no limits of its own, and the archives of its tasks
are not counted as stored.
"""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

_KEPT = sa.text("removed_at IS NULL AND owner IS NOT NULL")
_QUEUED = sa.text("status = 'queued' AND owner IS NOT NULL")


def upgrade() -> None:
    """Add the columns and the indexes, and write down whose the archives of tasks are."""
    op.add_column("api_keys", sa.Column("quotas", sa.Text))
    op.add_column("tasks", sa.Column("running_limit", sa.BigInteger))
    op.add_column("server", sa.Column("running_limit", sa.BigInteger))
    op.add_column("archives", sa.Column("owner", sa.String(128)))
    for archive in ("input_id", "output_id"):
        owner = f"(SELECT owner FROM tasks WHERE tasks.{archive} = archives.id)"  # noqa: S608 - the names above
        owned = f"SELECT {archive} FROM tasks WHERE owner IS NOT NULL AND {archive} IS NOT NULL"  # noqa: S608
        op.execute(sa.text(f"UPDATE archives SET owner = {owner} WHERE id IN ({owned})"))  # noqa: S608
    op.create_index(
        "archives_kept_of_owner", "archives", ["owner", "size_bytes"], postgresql_where=_KEPT, sqlite_where=_KEPT
    )
    op.create_index(
        "tasks_queued_of_owner",
        "tasks",
        ["owner", sa.text("priority DESC"), "not_before", "id"],
        postgresql_where=_QUEUED,
        sqlite_where=_QUEUED,
    )
