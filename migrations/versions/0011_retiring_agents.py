"""Agents that somebody wants to be replaced

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
works_with = "0005"


def upgrade() -> None:
    no = sa.text("false")
    op.add_column("cluster_agents", sa.Column("retiring", sa.Boolean(), server_default=no, nullable=False))


def downgrade() -> None:
    op.drop_column("cluster_agents", "retiring")
