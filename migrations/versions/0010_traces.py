"""The trace that an operation and the start of an agent belong to

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
works_with = "0005"


def upgrade() -> None:
    op.add_column("operations", sa.Column("trace", sa.Text(), nullable=True))
    op.add_column("cluster_agents", sa.Column("trace", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("cluster_agents", "trace")
    op.drop_column("operations", "trace")
