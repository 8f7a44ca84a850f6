"""Runs migrations on the connection that `private_api.migrate` hands over."""

from alembic import context

from private_api.columns import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=False
)
with context.begin_transaction():
    context.run_migrations()
