"""Alembic's entry: online only, on the connection that ``brain_clusters.db.migrate`` hands in."""

from __future__ import annotations

from alembic import context

from brain_clusters.db.models import Base


def run() -> None:
    """Run the migrations on the caller's connection; the caller holds the lock and the transaction."""
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection, target_metadata=Base.metadata, compare_type=True, compare_server_default=False
    )
    with context.begin_transaction():
        context.run_migrations()


run()
