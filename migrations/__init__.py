"""Alembic's migrations: the history of ``brain_clusters.db.models``."""
