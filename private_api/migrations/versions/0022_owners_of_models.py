"""Whose a model is, who may use it, and which names of calls lead to it.

It only adds: a private API of the version before registers models that are nobody's, and deploys without noting names.
"""

import json

import sqlalchemy as sa
from alembic import op

from private_api.columns import Id

revision = "0022"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and tables. Models that are there are nobody's; names are those of what is deployed."""
    op.add_column("models", sa.Column("owner", sa.String(128)))
    op.add_column("models", sa.Column("restricted", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "model_users",
        sa.Column("model_id", Id, sa.ForeignKey("models.id"), primary_key=True),
        sa.Column("owner", sa.String(128), primary_key=True),
    )
    names = op.create_table(
        "served_names",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("model_id", Id, sa.ForeignKey("models.id"), nullable=False),
    )
    if found := _names_in_use(op.get_bind()):
        op.bulk_insert(names, [{"kind": kind, "name": name, "model_id": id_} for (kind, name), id_ in found.items()])


def _names_in_use(connection: sa.Connection) -> dict[tuple[str, str], int]:
    deployed = connection.execute(sa.text("SELECT id, model_id, prefix, application, serving FROM deployments")).all()
    found: dict[tuple[str, str], int] = {}
    for row in deployed:
        for application in {row.application, *json.loads(row.serving).get("applications", ())}:
            found["application", application] = row.model_id
        if row.prefix is not None:
            found["prefix", row.prefix] = row.model_id
    model_of = {row.id: row.model_id for row in deployed}
    for row in connection.execute(sa.text("SELECT name, deployment_id FROM deployment_names")):
        found["model", row.name] = model_of[row.deployment_id]
    return found
